// What the pattern commands read: a grid, a method, tensors of a file.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "attention/schedule.h"
#include "attention/site.h"
#include "core/config_node.h"
#include "weights/tensor_source.h"

namespace strobe::tools {

// The site of the first call, `plans_always` unless --step is given; tokens of --grid and --text. `tokens` > 0: of the
// file's q, which the grid must fit, and the grid's default is 1 x 1 x what is not text.
attention::AttentionSite pattern_site(const ConfigNode& effective, int64_t tokens);

// The one rule of --attention, with --block-size among its options. ConfigError for several, and for heads=.
attention::AttentionRule pattern_rule(const ConfigNode& effective);

struct QkvCall {
  at::Tensor q;  // [B, H, N, D] float32
  at::Tensor k;  // [B, Hk, N, D], Hk divides H
  at::Tensor v;  // likewise, or undefined
  int step = 0;
};

// q k v, then q2 k2 v2 and so on, v of the first call where a later one has none. WeightError for shapes that do not fit
// and for NaN.
std::vector<QkvCall> read_qkv(const weights::TensorSource& source, const ConfigNode& effective, bool needs_values);

// The layout and orders of a call without its attention, which may be one of several that share a state. A method that
// asks for the LSE gets it from the scorer.
struct PlannedLayout {
  LayoutPtr layout;  // null: dense
  attention::PatternOrders orders;
  std::string note;
  double milliseconds = 0;
};
PlannedLayout plan_layout(const attention::AttentionRule& rule, const attention::AttentionSite& site,
                          const at::Tensor& q, const at::Tensor& k, attention::PatternState& state);

}  // namespace strobe::tools
