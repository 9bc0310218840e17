// The cases that tests, `strobe_kernel_check` and benchmarks run block attention on, and how one is run and judged.
//
// Every kernel is forced by name and compared with float64 on the same inputs. Outputs are poisoned with NaN, inputs and
// outputs end at pages that may not be touched, gaps of strided tensors hold NaN and have to keep it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/block_attention/block_attention.h"

namespace strobe::kernels {

enum class CaseLayout {
  kDense,      // no layout
  kFull,       // every block
  kRandom,     // each block with probability `density`
  kEmptyRows,  // random, every third row empty
  kAllEmpty,   // nothing kept
  kOneBlock,   // one block pair of the whole
  kColumn,     // one key block for all rows
  kDiagonal,
  kBand,  // three blocks around the diagonal
  kFirstAndLast,
  kTextTail,       // band, and the last block for all
  kLevels,         // pooled: each block at a random level or none
  kLevelsAndFull,  // the first blocks exact, the rest pooled by 8
  kTokensUnion,    // neighbours choose nearly the same
  kTokensGather    // every row chooses for itself
};

enum class CaseMemory { kHeadsOuter, kTokensOuter, kStrided };   // [B, H, N, D], [B, N, H, D], with gaps
enum class CaseBias { kNone, kFinite, kHidden, kHiddenBlocks };  // hidden: -inf, NaN in k and 1e4 in v

struct AttentionCase {
  std::string name;
  ScalarType dtype = ScalarType::kFloat32;
  int32_t batch = 1, heads = 2, key_heads = 2, query_tokens = 0, key_tokens = 0, head_dim = 64;
  CaseLayout layout = CaseLayout::kDense;
  int32_t query_block = 64, key_block = 64;  // 0: random lengths from 1 to 150
  double density = 0.3;
  bool is_per_head = true;  // the layout
  CaseMemory memory = CaseMemory::kHeadsOuter;
  CaseBias bias = CaseBias::kNone;
  double scale_factor = 1;  // times 1/sqrt(head_dim)
  float gain = 1;           // of q
  bool has_constant_keys = false, has_outlier_key = false;
  bool has_orders = false;  // of queries and keys, at random
  bool has_row_scale = false, is_lse_only = false, has_multiplicity_bias = true, replicates_tail = false;
};

// All cases, both dtypes.
std::vector<AttentionCase> attention_cases();

// Tensors, layout and parameters of a case; poisoned outputs.
class CaseRun {
 public:
  explicit CaseRun(const AttentionCase& attention_case);
  ~CaseRun();
  BlockAttentionParams& params();
  void poison_outputs();
  bool is_intact() const;                     // canaries and gaps
  std::vector<uint8_t> output_bytes() const;  // out and lse
  double out_element(int32_t batch_row, int32_t head, int32_t token, int32_t column) const;

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

struct CaseResult {
  std::string skipped;  // reason of the kernel
  std::string failure;  // empty: passed
  double call = 0, row = 0, lse = 0;
};

// Rows are sampled where a case is large: `budget` bounds their multiply-adds of the reference.
CaseResult run_attention_case(const BlockAttentionKernel& kernel, const AttentionCase& attention_case,
                              const Parallel& parallel, double budget);

// For kernels that do not refuse: bitwise equality over `runs` runs and over worker counts 1, 2, 3 and 7. Returns a failure or nothing.
std::string check_determinism(const BlockAttentionKernel& kernel, const AttentionCase& attention_case,
                              const Parallel& parallel, int runs);

// Dense and a full layout of uniform blocks of 64 and of 128 tokens: the same bits.
std::string check_dense_is_full(const BlockAttentionKernel& kernel, ScalarType dtype, int32_t head_dim,
                                const Parallel& parallel);

}  // namespace strobe::kernels
