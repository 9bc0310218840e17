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
  virtual std::string name() const = 0;
  // Empty: yes. Otherwise the reason in a sentence.
  virtual std::string refusal(const AttentionProblem& problem) const = 0;
  virtual AttentionOutput run(const AttentionProblem& problem) const = 0;
};

std::vector<std::string> backend_names();
// Best first. `forced` names the only one to use ("auto": all). ConfigError for an unknown name.
std::vector<std::unique_ptr<AttentionBackend>> make_backends(const std::string& forced);

}  // namespace strobe::attention
