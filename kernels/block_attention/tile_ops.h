// What an instruction set brings to tiled attention: packing, and the three stages of a query tile.
//
// A query tile of up to 128 rows walks a list of records. A record holds the keys and values of one group (8 or 16 keys
// of one piece of one block), laid out for the register tile, and a bias for each key. A stage is what fits in a score
// row: 64 keys, whatever blocks and pooling levels its groups come from.
//
//   record  keys [step][group] | values [panel][step'][16] | bias [group] fp32, in units of log 2
//           a step is one element of the head width (bf16: a pair of them), step' one key (bf16: a pair of keys)
//   q       packed by row groups of up to six: [step][rows of the group]; fp32: times scale log2(e)
//   s       [row][64] scores, then probabilities in place (bf16: in the front half of the row)
//   m, l    running maximum (log 2) of a row, and its sum as a vector of partial sums
//   o       [panel][row][16], not yet divided by the sum
//
// Only code behind this table is compiled for an instruction set; who calls it is portable.
#pragma once

#include <cstdint>

namespace strobe::kernels {

constexpr int kTileRows = 128;
constexpr int kStageKeys = 128;
constexpr int kScoreStride = kStageKeys + 8;  // of s: rows that a step broadcasts then lie in different cache banks
constexpr int kPanel = 16;                    // value columns
constexpr int kMaxGroup = 16;                 // keys of a record
constexpr int kStageGroups = kStageKeys / 8;  // records of a stage at most
constexpr float kLowestMaximum = -1e30F;  // start of a running maximum: finite, so that hidden scores never give NaN
constexpr float kLog2E = 1.4426950408889634F;
constexpr float kLn2 = 0.6931471805599453F;

struct RecordShape {
  int head_dim = 0;
  int panels = 0;  // 0: keys only
  int64_t value_offset = 0;
  int64_t bias_offset = 0;
  int64_t bytes = 0;
};

struct Tile {
  RecordShape shape;
  int rows = 0;
  char* q = nullptr;
  float* scale = nullptr;  // bf16: of each row's scores; q itself then is exact. fp32: not used
  float* s = nullptr;
  float* m = nullptr;
  float* l = nullptr;
  float* o = nullptr;
};

struct Stage {
  const char* const* records = nullptr;
  int count = 0;
  const char* const* next = nullptr;  // records of the next stage, for prefetching
  int next_count = 0;
};

struct TileOps {
  int group_keys = 0;
  int lanes = 0;  // of a row of l
  bool is_bf16 = false;
  void (*widen)(const uint16_t* from, float* to, int64_t count) = nullptr;  // bf16 -> fp32
  // rows[i] has head_dim floats; scales[i] multiplies row i.
  void (*pack_queries)(const float* const* rows, const float* scales, const Tile& tile) = nullptr;
  void (*pack_keys)(const float* const* rows, const RecordShape& shape, char* record) = nullptr;    // group_keys rows
  void (*pack_values)(const float* const* rows, const RecordShape& shape, char* record) = nullptr;  // group_keys rows
  void (*scores)(const Tile& tile, const Stage& stage) = nullptr;                                   // q, records -> s
  void (*softmax)(const Tile& tile, const Stage& stage) = nullptr;  // s -> probabilities; m, l; o where m grew
  void (*values)(const Tile& tile, const Stage& stage) = nullptr;   // o += probabilities x values
  // Row i of o divided by its sum, to out[i] (fp32; or bf16 if `to_bf16`).
  void (*finish)(const Tile& tile, void* const* out, bool to_bf16) = nullptr;
};

RecordShape record_shape(const TileOps& ops, int head_dim, bool has_values);

// How `rows` rows are cut into row groups: the size of the next one. Six, and no group of one or two at the end.
static inline int next_row_group(int rows) {
  if (rows <= 6) return rows;
  if (rows == 7 || rows == 8) return 4;
  return rows == 9 ? 5 : 6;
}

}  // namespace strobe::kernels
