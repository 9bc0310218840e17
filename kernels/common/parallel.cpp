#include "kernels/common/parallel.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace strobe::kernels {

void run_tasks(const Parallel& parallel, int tasks, void (*task)(void* argument, int index), void* argument) {
  if (!parallel.run || parallel.workers <= 1 || tasks <= 1) {
    for (int i = 0; i < tasks; ++i) task(argument, i);
    return;
  }
  parallel.run(parallel.pool, tasks, task, argument);
}

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable work, done;
  std::vector<std::thread> threads;
  void (*task)(void*, int) = nullptr;
  void* argument = nullptr;
  int tasks = 0;
  std::atomic<int> next{0};
  unsigned round = 0;  // counts calls: a thread runs each once
  int busy = 0;
  bool is_stopping = false;

  void claim() {
    for (int i = next.fetch_add(1); i < tasks; i = next.fetch_add(1)) task(argument, i);
  }

  void loop() {
    unsigned seen = 0;
    for (std::unique_lock<std::mutex> lock(mutex);;) {
      work.wait(lock, [&] { return is_stopping || round != seen; });
      if (is_stopping) return;
      seen = round;
      lock.unlock();
      claim();
      lock.lock();
      if (--busy == 0) done.notify_one();
    }
  }

  void run(int count, void (*function)(void*, int), void* data) {
    std::unique_lock<std::mutex> lock(mutex);
    tasks = count;
    task = function;
    argument = data;
    next = 0;
    busy = static_cast<int>(threads.size());
    ++round;
    lock.unlock();
    work.notify_all();
    claim();
    lock.lock();
    done.wait(lock, [&] { return busy == 0; });
  }
};

ThreadPool::ThreadPool(int workers) : state_(std::make_unique<State>()) {
  for (int i = 1; i < workers; ++i) state_->threads.emplace_back([this] { state_->loop(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->is_stopping = true;
  }
  state_->work.notify_all();
  for (std::thread& thread : state_->threads) thread.join();
}

Parallel ThreadPool::parallel(int workers) {
  Parallel parallel;
  parallel.workers = workers;
  parallel.pool = state_.get();
  parallel.run = [](void* pool, int tasks, void (*task)(void*, int), void* argument) {
    static_cast<State*>(pool)->run(tasks, task, argument);
  };
  return parallel;
}

Parallel ThreadPool::parallel() { return parallel(1 + static_cast<int>(state_->threads.size())); }

}  // namespace strobe::kernels
