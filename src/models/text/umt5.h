// UMT5 text encoder (also T5 v1.1): token ids to embeddings.
//
// Input      ids without padding, int32 [n], n >= 1.
// Output     [n, C] float32, C = d_model. Rows behind the real tokens are the caller's zeros; as padding keys are
//            masked in the padded model, running the real tokens alone gives the same rows.
// Memory     The encoder keeps no weights: each call loads one block at a time from the store and gives it back, pages of
//            the mapped file included, so that the encoder never stands in memory as a whole. Embedding rows are
//            gathered before they are widened.
// Precision  Softmax and norm statistics in float32. bfloat16: everything else in bfloat16. float16: additionally `wo`
//            in float32, as values overflow there.
// Source     transformers `modeling_umt5.py`, `modeling_t5.py`; names of the original Wan files as in
//            wan/modules/t5.py.
// Errors     ConfigError for a config that asks for another network; ShapeError for ids out of the vocabulary.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/config_node.h"
#include "models/model_work.h"
#include "models/text/text_encoder.h"
#include "weights/weight_store.h"

namespace strobe::models {

struct Umt5Config {
  int64_t vocab_size = 0;  // rows of the embedding, may exceed the tokenizer's pieces
  int64_t d_model = 0;
  int64_t d_kv = 0;  // width of one head; heads x d_kv need not be d_model
  int64_t d_ff = 0;
  int64_t num_heads = 0;
  int64_t num_layers = 0;
  int64_t num_buckets = 32;
  int64_t max_distance = 128;
  double layer_norm_eps = 1e-6;
  bool bias_in_every_block = true;  // false: T5 v1.1, where block 0's bias serves all

  // `text_encoder/config.json`.
  static Umt5Config from_json(const ConfigNode& node);
  // From the shapes of a UMT5 checkpoint without a config file, as in the original Wan folders. WeightError if the
  // tensors are not those of one.
  static Umt5Config from_tensors(const weights::TensorSource& source);
};

// Sees "text.embed" and "text.block<i>.out", each [n, C] in the compute dtype.
using TextProbe = std::function<void(const std::string& name, const at::Tensor& value)>;

// Names and shapes of the encoder, `shared.weight` as the embedding's name.
std::vector<weights::TensorSpec> umt5_parameters(const Umt5Config& config);

// Accepts Hugging Face names with either or both names of the embedding and the names of the original `.pth` files;
// drops decoder, head and embedded tokenizer.
weights::Rename umt5_rename(const weights::TensorSource& source);

// `store` must be bound to umt5_parameters(config). `dtype` is float32, bfloat16 or float16.
std::unique_ptr<TextEncoder> make_umt5(const Umt5Config& config, weights::WeightStore store, at::ScalarType dtype,
                                       at::Device device, TextProbe probe = {});

// The work of one prompt of `tokens`; weights are held one tensor at a time.
TextWork compute_umt5_work(const Umt5Config& config, int64_t tokens, int64_t element_bytes);

// Bucket of the relative position key - query.
int64_t relative_bucket(int64_t key_minus_query, int64_t num_buckets, int64_t max_distance);

}  // namespace strobe::models
