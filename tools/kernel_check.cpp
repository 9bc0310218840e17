// strobe_kernel_check: every kernel of the lists by forced name against float64, and with --bench its speed. Links the
// kernels only, so that it runs where nothing but a compiler is.
//
// Exit status: 0 all that can run here passed, 1 something failed, 2 usage.
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>

#include "kernels/block_attention/cases.h"
#include "kernels/block_score/cases.h"
#include "kernels/common/machine.h"
#include "kernels/common/parallel.h"
#include "tools/kernel_bench.h"

namespace {

using namespace strobe::kernels;

constexpr double kBudget = 3e7;          // multiply-adds of the reference for a case
constexpr double kReferenceLimit = 4e6;  // the reference itself runs cases up to this size
constexpr int kRuns = 20;

// What runs: named when a closed page is touched.
char running[160];

void note_running(const char* kernel, const std::string& name) {
  std::snprintf(running, sizeof running, "%s on %s", kernel, name.c_str());
}

void report_fault(int /*signal*/) {
  const char text[] = "FAILED touched memory beyond a tensor: ";
  for (const auto& [bytes, size] :
       {std::pair<const char*, size_t>{text, sizeof text - 1}, {running, std::strlen(running)}, {"\n", size_t{1}}}) {
    if (write(STDOUT_FILENO, bytes, size) < 0) break;
  }
  _exit(1);
}

struct Tally {
  int passed = 0, failed = 0, skipped = 0;
  std::map<std::string, int> reasons;
  double call = 0, row = 0, lse = 0;
};

void note(Tally& tally, const std::string& kernel, const std::string& name, const CaseResult& result) {
  if (!result.skipped.empty()) {
    ++tally.skipped;
    ++tally.reasons[result.skipped];
    return;
  }
  tally.call = std::max(tally.call, result.call);
  tally.row = std::max(tally.row, result.row);
  tally.lse = std::max(tally.lse, result.lse);
  ++(result.failure.empty() ? tally.passed : tally.failed);
  if (!result.failure.empty())
    std::printf("FAILED %s on %s: %s\n", kernel.c_str(), name.c_str(), result.failure.c_str());
}

void note(Tally& tally, const std::string& kernel, const std::string& failure) {
  ++(failure.empty() ? tally.passed : tally.failed);
  if (!failure.empty()) std::printf("FAILED %s: %s\n", kernel.c_str(), failure.c_str());
}

void print(const std::string& kernel, const char* dtype, const Tally& tally) {
  std::printf("%-30s %s  passed %d  failed %d  skipped %d  worst: call %.2e  row %.2e  lse %.2e\n", kernel.c_str(),
              dtype, tally.passed, tally.failed, tally.skipped, tally.call, tally.row, tally.lse);
  for (const auto& [reason, count] : tally.reasons) std::printf("    skipped %d: %s\n", count, reason.c_str());
}

int check_attention(ThreadPool& pool, const std::string& filter) {
  int failed = 0;
  const std::vector<AttentionCase> cases = attention_cases();
  for (const BlockAttentionKernel& kernel : block_attention_kernels()) {
    const bool is_reference = std::strcmp(kernel.name, "block_attention_reference") == 0;
    for (ScalarType dtype : {ScalarType::kFloat32, ScalarType::kBFloat16}) {
      Tally tally;
      for (const AttentionCase& c : cases) {
        if (c.dtype != dtype || c.name.find(filter) == std::string::npos) continue;
        const double size = 1.0 * c.batch * c.heads * c.query_tokens * c.key_tokens * c.head_dim;
        if (is_reference && size > kReferenceLimit) continue;
        note_running(kernel.name, c.name);
        const CaseResult result = run_attention_case(kernel, c, pool.parallel(), kBudget);
        note(tally, kernel.name, c.name, result);
        const bool is_small = c.query_tokens <= 1500 && !is_reference && result.skipped.empty();
        if (is_small) note(tally, kernel.name, check_determinism(kernel, c, pool.parallel(), kRuns));
      }
      for (int32_t width : {32, 64, 128}) {
        if (!is_reference && tally.skipped == 0)
          note(tally, kernel.name, check_dense_is_full(kernel, dtype, width, pool.parallel()));
      }
      print(kernel.name, dtype == ScalarType::kFloat32 ? "fp32" : "bf16", tally);
      failed += tally.failed;
    }
  }
  return failed;
}

int check_scores(ThreadPool& pool, const std::string& filter) {
  int failed = 0;
  for (const BlockScoreKernel& kernel : block_score_kernels()) {
    Tally tally;
    double mass = 0, importance = 0, sums = 0;
    for (const ScoreCase& c : score_cases()) {
      if (c.name.find(filter) == std::string::npos) continue;
      note_running(kernel.name, c.name);
      const ScoreResult result = run_score_case(kernel, c, pool.parallel());
      mass = std::max(mass, result.mass);
      importance = std::max(importance, result.importance);
      sums = std::max(sums, result.sums);
      CaseResult as_case;
      as_case.skipped = result.skipped;
      as_case.failure = result.failure;
      note(tally, kernel.name, c.name, as_case);
    }
    std::printf("%-30s both  passed %d  failed %d  skipped %d  worst: mass %.2e  importance %.2e  sums %.2e\n",
                kernel.name, tally.passed, tally.failed, tally.skipped, mass, importance, sums);
    for (const auto& [reason, count] : tally.reasons) std::printf("    skipped %d: %s\n", count, reason.c_str());
    failed += tally.failed;
  }
  return failed;
}

}  // namespace

int main(int argc, char** argv) {
  std::string filter;
  bool is_bench = false;
  strobe::KernelBenchOptions bench;
  const std::map<std::string, int*> numbers = {{"--tokens", &bench.tokens},
                                               {"--rounds", &bench.rounds},
                                               {"--width", &bench.head_dim},
                                               {"--workers", &bench.workers}};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto number = numbers.find(word);
    if (word == "--bench") {
      is_bench = true;
    } else if (word == "--only" && i + 1 < argc) {
      filter = argv[++i];
    } else if (number != numbers.end() && i + 1 < argc && std::atoi(argv[i + 1]) > 0) {
      *number->second = std::atoi(argv[++i]);
    } else {
      std::fprintf(stderr,
                   "usage: strobe_kernel_check [--only PART_OF_A_CASE_NAME]\n"
                   "       strobe_kernel_check --bench [--tokens N] [--rounds N] [--width D] [--workers N]\n");
      return 2;
    }
  }
  std::printf("%s, %d logical processors\n", machine().cpu_name.c_str(), machine().cores);
  if (is_bench) {
    strobe::run_kernel_bench(bench);
    return 0;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGSEGV, report_fault);
  ThreadPool pool(machine().cores);
  const int failed = check_attention(pool, filter) + check_scores(pool, filter);
  std::printf(failed == 0 ? "all passed\n" : "%d failed\n", failed);
  return failed == 0 ? 0 : 1;
}
