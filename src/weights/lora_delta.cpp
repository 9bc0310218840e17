#include "weights/lora_delta.h"

#include <fmt/ranges.h>

#include <limits>

#include "core/error.h"
#include "core/torch.h"

namespace strobe::weights {
namespace {

using Role = LoraRole;

int64_t saturating_product(int64_t a, int64_t b) {
  int64_t out = 0;
  return __builtin_mul_overflow(a, b, &out) ? std::numeric_limits<int64_t>::max() : out;
}

// Shapes of one module's factors, each checked to be a matrix without empty axes.
class Factors {
 public:
  Factors(const LoraFile& file, const LoraModule& module) : file_(file), module_(module) {}

  bool has_any(std::initializer_list<Role> roles) const {
    return std::any_of(roles.begin(), roles.end(), [&](Role role) { return module_.has(role); });
  }

  // Fails naming what is there where a partner is not.
  void require(Role role, const char* what) const {
    if (!module_.has(role)) file_.fail(module_.keys.begin()->second, fmt::format("stands without its {}", what));
  }

  const std::vector<int64_t>& operator[](Role role) const {
    const std::vector<int64_t>& shape = file_.shape(module_, role);
    const bool is_empty = std::find(shape.begin(), shape.end(), 0) != shape.end();
    if (shape.size() < 2 || is_empty) {
      fail(role, fmt::format("expected two axes or more, none of them empty, found [{}]", fmt::join(shape, ", ")));
    }
    return shape;
  }
  int64_t rows(Role role) const { return (*this)[role][0]; }
  // Everything behind the first `axes` axes.
  int64_t behind(Role role, size_t axes) const {
    const std::vector<int64_t>& shape = (*this)[role];
    int64_t product = 1;
    for (size_t axis = axes; axis < shape.size(); ++axis) product = saturating_product(product, shape[axis]);
    return product;
  }
  int64_t cols(Role role) const { return behind(role, 1); }

  void check_ranks(Role left, int64_t left_rank, Role right, int64_t right_rank) const {
    if (left_rank == right_rank) return;
    fail(left, fmt::format("[{}] and {} [{}] have no rank in common", fmt::join((*this)[left], ", "),
                           module_.keys.at(right), fmt::join((*this)[right], ", ")));
  }

  [[noreturn]] void fail(Role role, const std::string& message) const { file_.fail(module_.keys.at(role), message); }

 private:
  const LoraFile& file_;
  const LoraModule& module_;
};

LoraShape lora_shape(const LoraModule& module, const Factors& f) {
  f.require(Role::kA, "lora_A (lora_down)");
  f.require(Role::kB, "lora_B (lora_up)");
  LoraShape shape{.rows = f.rows(Role::kB), .cols = f.cols(Role::kA), .rank = f.rows(Role::kA)};
  if (!module.has(Role::kMid)) {
    f.check_ranks(Role::kB, f.cols(Role::kB), Role::kA, shape.rank);
    return shape;
  }
  f.check_ranks(Role::kB, f.cols(Role::kB), Role::kMid, f.rows(Role::kMid));
  f.check_ranks(Role::kMid, f[Role::kMid][1], Role::kA, shape.rank);
  shape.cols = saturating_product(shape.cols, f.behind(Role::kMid, 2));
  return shape;
}

// One pair of factors: a [out, r] times b [r, in], or with a core t [r, r, k ...], a [r, out] and b [r, in].
LoraShape pair_shape(const Factors& f, Role a, Role b, std::optional<Role> t) {
  if (!t) {
    f.check_ranks(a, f.cols(a), b, f.rows(b));
    return {.rows = f.rows(a), .cols = f.cols(b), .rank = f.rows(b)};
  }
  f.check_ranks(*t, f.rows(*t), a, f.rows(a));
  f.check_ranks(*t, f[*t][1], b, f.rows(b));
  return {.rows = f.cols(a), .cols = saturating_product(f.cols(b), f.behind(*t, 2)), .rank = f.rows(b)};
}

std::optional<Role> core_of(const LoraModule& module, Role role) {
  return module.has(role) ? std::optional<Role>(role) : std::nullopt;
}

LoraShape loha_shape(const LoraModule& module, const Factors& f) {
  f.require(Role::kHadaW1A, "hada_w1_a");
  f.require(Role::kHadaW1B, "hada_w1_b");
  f.require(Role::kHadaW2A, "hada_w2_a");
  f.require(Role::kHadaW2B, "hada_w2_b");
  if (f.has_any({Role::kHadaT1, Role::kHadaT2})) {
    f.require(Role::kHadaT1, "hada_t1");
    f.require(Role::kHadaT2, "hada_t2");
  }
  const LoraShape first = pair_shape(f, Role::kHadaW1A, Role::kHadaW1B, core_of(module, Role::kHadaT1));
  const LoraShape second = pair_shape(f, Role::kHadaW2A, Role::kHadaW2B, core_of(module, Role::kHadaT2));
  if (first.rows != second.rows || first.cols != second.cols) {
    f.fail(Role::kHadaW1A,
           fmt::format("the two products are [{}, {}] and [{}, {}]", first.rows, first.cols, second.rows, second.cols));
  }
  return first;
}

LoraShape lokr_shape(const LoraModule& module, const Factors& f) {
  LoraShape first, second;
  if (module.has(Role::kLokrW1)) {
    first = {.rows = f.rows(Role::kLokrW1), .cols = f.cols(Role::kLokrW1)};
  } else {
    f.require(Role::kLokrW1A, "lokr_w1 or lokr_w1_a");
    f.require(Role::kLokrW1B, "lokr_w1_b");
    first = pair_shape(f, Role::kLokrW1A, Role::kLokrW1B, std::nullopt);
  }
  if (module.has(Role::kLokrW2)) {
    second = {.rows = f.rows(Role::kLokrW2), .cols = f.cols(Role::kLokrW2)};
  } else {
    f.require(Role::kLokrW2A, "lokr_w2 or lokr_w2_a");
    f.require(Role::kLokrW2B, "lokr_w2_b");
    second = pair_shape(f, Role::kLokrW2A, Role::kLokrW2B, core_of(module, Role::kLokrT2));
  }
  return {.rows = saturating_product(first.rows, second.rows),
          .cols = saturating_product(first.cols, second.cols),
          .rank = second.rank > 0 ? second.rank : first.rank};
}

// Reads factors as float32 matrices [first axis, the rest].
class Reader {
 public:
  Reader(const LoraFile& file, const LoraModule& module, at::Device device)
      : file_(file), module_(module), device_(device) {}

  at::Tensor operator()(Role role) const {
    const at::Tensor tensor = file_.read(module_, role);
    return tensor.to(at::TensorOptions().dtype(at::kFloat).device(device_)).reshape({tensor.size(0), -1});
  }
  // [r, r, k]
  at::Tensor core(Role role) const {
    const at::Tensor tensor = file_.read(module_, role);
    return (*this)(role).reshape({tensor.size(0), tensor.size(1), -1});
  }
  at::Tensor pair(Role a, Role b, Role t) const {
    if (!module_.has(t)) return at::matmul((*this)(a), (*this)(b));
    return at::einsum("pqk,po,qi->oik", {core(t), (*this)(a), (*this)(b)}).flatten(1);
  }

 private:
  const LoraFile& file_;
  const LoraModule& module_;
  at::Device device_;
};

}  // namespace

std::optional<LoraShape> product_shape(const LoraFile& file, const LoraModule& module) {
  const Factors f(file, module);
  const bool is_lora = f.has_any({Role::kA, Role::kB, Role::kMid, Role::kBBias});
  const bool is_loha =
      f.has_any({Role::kHadaW1A, Role::kHadaW1B, Role::kHadaW2A, Role::kHadaW2B, Role::kHadaT1, Role::kHadaT2});
  const bool is_lokr = f.has_any(
      {Role::kLokrW1, Role::kLokrW1A, Role::kLokrW1B, Role::kLokrW2, Role::kLokrW2A, Role::kLokrW2B, Role::kLokrT2});
  if (is_lora + is_loha + is_lokr > 1) file.fail(module.name, "mixes factors of LoRA, LoHa and LoKr");
  if (is_lora) return lora_shape(module, f);
  if (is_loha) return loha_shape(module, f);
  if (is_lokr) return lokr_shape(module, f);
  if (module.has(Role::kMagnitude)) f.require(Role::kA, "lora_A and lora_B");
  return std::nullopt;
}

at::Tensor compute_product(const LoraFile& file, const LoraModule& module, at::Device device) {
  const Reader read(file, module, device);
  if (module.has(Role::kMid)) {
    return at::einsum("op,pqk,qc->ock", {read(Role::kB), read.core(Role::kMid), read(Role::kA)}).flatten(1);
  }
  if (module.has(Role::kA)) return at::matmul(read(Role::kB), read(Role::kA));
  if (module.has(Role::kHadaW1A)) {
    return read.pair(Role::kHadaW1A, Role::kHadaW1B, Role::kHadaT1) *
           read.pair(Role::kHadaW2A, Role::kHadaW2B, Role::kHadaT2);
  }
  const at::Tensor first =
      module.has(Role::kLokrW1) ? read(Role::kLokrW1) : at::matmul(read(Role::kLokrW1A), read(Role::kLokrW1B));
  const at::Tensor second =
      module.has(Role::kLokrW2) ? read(Role::kLokrW2) : read.pair(Role::kLokrW2A, Role::kLokrW2B, Role::kLokrT2);
  return at::kron(first, second);
}

bool is_magnitude_of(const std::vector<int64_t>& magnitude, const std::vector<int64_t>& weight) {
  if (magnitude.empty() || weight.size() < 2) return false;
  int64_t numel = 1;
  for (int64_t size : magnitude) numel = saturating_product(numel, size);
  const bool is_per_row = magnitude[0] == weight[0] && numel == weight[0];
  const bool is_per_column =
      magnitude.size() > 1 && magnitude[0] == 1 && magnitude[1] == weight[1] && numel == weight[1];
  return is_per_row || is_per_column;
}

at::Tensor rescale_to_magnitude(const at::Tensor& changed, const at::Tensor& magnitude) {
  const bool is_per_row = magnitude.size(0) == changed.size(0) && magnitude.numel() == changed.size(0);
  const int64_t axis = is_per_row ? 0 : 1;
  std::vector<int64_t> others, shape(static_cast<size_t>(changed.dim()), 1);
  for (int64_t i = 0; i < changed.dim(); ++i) {
    if (i != axis) others.push_back(i);
  }
  shape[static_cast<size_t>(axis)] = changed.size(axis);
  const at::Tensor length = changed.square().sum(others, /*keepdim=*/true).sqrt();
  // A row of zeros has no direction and stays as it is.
  const at::Tensor factor = magnitude.to(changed.options()).reshape(shape) / length.masked_fill(length == 0, 1.0);
  return changed * factor;
}

}  // namespace strobe::weights
