// What the tests of the program ask of each attention method, as far as a build knows it.
#pragma once

#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "tests/cli/cli_fixture.h"

namespace strobe::test {

struct CliAttention : Cli {
  // Methods of this build, dense left out.
  const std::vector<std::string>& sparse_methods() const {
    static std::vector<std::string> methods;
    if (!methods.empty()) return methods;
    std::istringstream lines(strobe({"pattern", "list"}).out);
    for (std::string line; std::getline(lines, line) && !line.empty();) {
      const std::string name = line.substr(0, line.find(' '));
      if (!name.empty() && name != "dense") methods.push_back(name);
    }
    return methods;
  }
  bool knows(const std::string& method) const {
    const auto& methods = sparse_methods();
    return std::find(methods.begin(), methods.end(), method) != methods.end();
  }
  // Options that drop blocks on a grid of 5 x 2 x 4 patches after the first of four steps.
  static std::string sparse_rule(const std::string& method) {
    const std::map<std::string, std::string> options = {
        {"radial", "block_size=8,dense_layers=0,dense_steps=1"},
        {"window", "window=1/1/1,block_size=8,dense_steps=1"},
        {"vmoba", "chunk_1d=1,chunk_2d=2/2,chunk_3d=1/2/2,topk=1,dense_steps=1"},
        {"psa", "block_size=8,query_block=8,ends=.2/.3/.4/.5,dense_steps=1"},
        {"adaspa", "block_size=8,sparsity=0.6,search_steps=1/3,dense_steps=1"},
        {"sparsed", "block_size=8,keep=0.3"},
        {"topk", "block_size=8,keep=0.3,dense_steps=1"}};
    const auto found = options.find(method);
    return found == options.end() ? method : method + ":" + found->second;
  }
  // Options that keep everything; methods that bring the tokens in an order of their own add up in another order.
  static std::string full_rule(const std::string& method) {
    const std::map<std::string, std::string> options = {
        {"radial", "block_size=8,sink_frames=99,dense_layers=0,dense_steps=0"},
        {"window", "window=99/99/99,block_size=8,dense_steps=0"},
        {"vmoba", "topk=99,dense_steps=0"},
        {"psa", "block_size=8,query_block=8,ends=1/1/1/1,cap=off,dense_steps=0"},
        {"adaspa", "block_size=8,sparsity=0,search_steps=0/2,dense_steps=0"},
        {"sparsed", "block_size=8,keep=1"},
        {"topk", "block_size=8,keep=1,dense_steps=0"}};
    const auto found = options.find(method);
    return found == options.end() ? "" : method + ":" + found->second;
  }
  static bool reorders(const std::string& method) { return method == "vmoba" || method == "psa"; }
};

}  // namespace strobe::test
