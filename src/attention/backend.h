// Backends: the programs that compute an AttentionProblem. Listed best first in backends/backends.inc.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "attention/problem.h"

namespace strobe::attention {

class AttentionBackend {
 public:
  virtual ~AttentionBackend() = default;
  virtual std::string name() const = 0;  // of the kernel: the string in records and reports
  // Empty: yes. Otherwise the reason in a sentence.
  virtual std::string refusal(const AttentionProblem& problem) const = 0;
  // Writes to output.out where it is defined, otherwise makes it.
  virtual void run(const AttentionProblem& problem, AttentionOutput& output) const = 0;
};

using BackendList = std::vector<std::unique_ptr<AttentionBackend>>;

// Names that --attention-backend takes, best first: groups (rows of backends.inc) and single kernels.
std::vector<std::string> backend_names();
// Best first. `forced` names the only group or kernel to use ("auto": all). ConfigError for an unknown name.
BackendList make_backends(const std::string& forced);

// The first that can do it. Those passed over are added to `reasons`; UnsupportedError with them where none can.
const AttentionBackend& choose_backend(const BackendList& backends, const AttentionProblem& problem,
                                       std::string& reasons);

}  // namespace strobe::attention
