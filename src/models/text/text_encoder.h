// Text encoder: cleaned prompt to embeddings.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace strobe::models {

// The embedding of one prompt. A model that pads (Wan: to 512 rows) sees `states` followed by rows of zeros.
struct TextEmbedding {
  at::Tensor states;          // [n, C] float32, the real tokens only, end token included
  int64_t padded_tokens = 0;  // rows the DiT sees, zeros behind the first n
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Ids with the end token, at most `max_tokens`: text beyond is cut and the end token kept. No padding.
  virtual std::vector<int32_t> encode(const std::string& text, int64_t max_tokens) const = 0;
};

class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  // `ids` without padding -> [n, C] float32. `before_block` is called before each block, none left out, and may throw to
  // stop: a text through a large encoder takes minutes where there is no GPU.
  virtual at::Tensor encode(const std::vector<int32_t>& ids, const std::function<void()>& before_block) const = 0;
  at::Tensor encode(const std::vector<int32_t>& ids) const { return encode(ids, {}); }
  // Several prompts in one pass, for training: [n_1 + n_2 + .., C] float32. Autograd records it where it is on.
  virtual at::Tensor encode_together(const std::vector<std::vector<int32_t>>& prompts) const = 0;
  virtual int64_t width() const = 0;
};

}  // namespace strobe::models
