// Running tasks: through the host's pool, through our own, or on the calling thread.
#pragma once

#include <memory>

#include "kernels/common/types.h"

namespace strobe::kernels {

// task(argument, i) for i in [0, tasks) through `parallel`; on this thread if it has no pool or one worker.
void run_tasks(const Parallel& parallel, int tasks, void (*task)(void* argument, int index), void* argument);

// The same for a callable: run_tasks(parallel, n, [&](int index) { ... }). It must not throw.
template <class Task>
void run_tasks(const Parallel& parallel, int tasks, Task& task) {
  run_tasks(
      parallel, tasks, [](void* argument, int index) { (*static_cast<Task*>(argument))(index); }, &task);
}

// Threads for programs without a pool of their own (LibTorch has one). Threads live as long as the pool, so that the
// scratch memory of kernels, which belongs to threads, is kept between calls.
class ThreadPool {
 public:
  explicit ThreadPool(int workers);  // the calling thread is one of them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // For one caller at a time; `workers` may be less than the pool has.
  Parallel parallel(int workers);
  Parallel parallel();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace strobe::kernels
