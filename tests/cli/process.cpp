#include "tests/cli/process.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <stdexcept>
#include <thread>

namespace strobe::test {
namespace {

[[noreturn]] void run_child(const std::vector<std::string>& arguments, const ProcessOptions& options, const int out[2],
                            const int err[2]) {
  dup2(out[1], STDOUT_FILENO);
  dup2(err[1], STDERR_FILENO);
  for (const int* pipe_ends : {out, err}) {
    close(pipe_ends[0]);
    close(pipe_ends[1]);
  }
  if (!options.folder.empty() && chdir(options.folder.c_str()) != 0) _exit(126);
  for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execv(argv[0], argv.data());
  _exit(127);
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& arguments, const ProcessOptions& options) {
  int out[2], err[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) throw std::runtime_error("pipe failed");
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("fork failed");
  if (child == 0) run_child(arguments, options, out, err);
  close(out[1]);
  close(err[1]);

  ProcessResult result;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(options.timeout_seconds);
  bool is_interrupted = false;
  pollfd streams[2] = {{out[0], POLLIN, 0}, {err[0], POLLIN, 0}};
  std::string* texts[2] = {&result.out, &result.err};
  int open_streams = 2;
  while (open_streams > 0) {
    if (std::chrono::steady_clock::now() > deadline) kill(child, SIGKILL);
    poll(streams, 2, 100);
    for (int i = 0; i < 2; ++i) {
      if (streams[i].fd < 0 || streams[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t count = read(streams[i].fd, buffer, sizeof buffer);
      if (count > 0) {
        texts[i]->append(buffer, static_cast<size_t>(count));
        continue;
      }
      close(streams[i].fd);
      streams[i].fd = -1;
      --open_streams;
    }
    if (!is_interrupted && !options.interrupt_after.empty() &&
        result.err.find(options.interrupt_after) != std::string::npos) {
      is_interrupted = true;
      for (int i = 0; i < options.signals; ++i) {
        if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
        kill(child, options.signal);
      }
    }
  }
  int status = 0;
  waitpid(child, &status, 0);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace strobe::test
