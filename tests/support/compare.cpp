#include "tests/support/compare.h"

#include <cmath>
#include <limits>

#include "core/torch.h"

namespace strobe::test {
namespace {

std::string coordinate(int64_t flat, at::IntArrayRef sizes) {
  std::vector<int64_t> index(sizes.size());
  for (size_t axis = sizes.size(); axis-- > 0;) {
    index[axis] = flat % sizes[axis];
    flat /= sizes[axis];
  }
  std::string text = "[";
  for (size_t axis = 0; axis < index.size(); ++axis) text += (axis ? ", " : "") + std::to_string(index[axis]);
  return text + "]";
}

}  // namespace

double relative_l2(const at::Tensor& actual, const at::Tensor& expected) {
  at::Tensor a = actual.to(at::kDouble), b = expected.to(at::kDouble);
  double norm = b.norm().item<double>();
  double difference = (a - b).norm().item<double>();
  return norm > 0 ? difference / norm : difference;
}

::testing::AssertionResult matches(const at::Tensor& actual, const at::Tensor& expected, Tolerance tolerance) {
  if (!actual.defined() || !expected.defined()) return ::testing::AssertionFailure() << "undefined tensor";
  if (actual.sizes() != expected.sizes()) {
    return ::testing::AssertionFailure() << "shape " << actual.sizes() << ", expected " << expected.sizes();
  }
  if (expected.numel() == 0) return ::testing::AssertionSuccess();
  at::Tensor a = actual.detach().to(at::kCPU, at::kDouble).contiguous();
  at::Tensor b = expected.detach().to(at::kCPU, at::kDouble).contiguous();
  at::Tensor odd = ~(at::isfinite(a) & at::isfinite(b));
  if (odd.any().item<bool>()) {
    at::Tensor both = (a == b) | (at::isnan(a) & at::isnan(b));
    at::Tensor bad = (odd & ~both).flatten().nonzero();
    if (bad.numel() > 0) {
      int64_t where = bad[0][0].item<int64_t>();
      return ::testing::AssertionFailure()
             << "not finite alike at " << coordinate(where, a.sizes()) << ": " << a.flatten()[where].item<double>()
             << ", expected " << b.flatten()[where].item<double>();
    }
    a = a.masked_fill(odd, 0.0);
    b = b.masked_fill(odd, 0.0);
  }
  const double whole = relative_l2(a, b);
  const int64_t width = a.dim() > 0 ? a.size(-1) : 1;
  at::Tensor rows_a = a.reshape({-1, width}), rows_b = b.reshape({-1, width});
  at::Tensor row_error = (rows_a - rows_b).norm(2, {1});
  const double largest = rows_b.norm(2, {1}).max().item<double>();
  const double worst = row_error.max().item<double>() / (largest > 0 ? largest : 1.0);
  const double worst_limit = tolerance.worst_row > 0 ? tolerance.worst_row : 10 * tolerance.relative_l2;
  if (whole <= tolerance.relative_l2 && worst <= worst_limit) return ::testing::AssertionSuccess();
  at::Tensor error = (a - b).abs().flatten();
  const double scale = std::sqrt(b.pow(2).mean().item<double>());
  at::Tensor bad = (error > tolerance.relative_l2 * (scale > 0 ? scale : 1.0)).nonzero();
  int64_t first = bad.numel() > 0 ? bad[0][0].item<int64_t>() : error.argmax().item<int64_t>();
  return ::testing::AssertionFailure() << "relative L2 " << whole << " (limit " << tolerance.relative_l2
                                       << "), worst row " << worst << " (limit " << worst_limit << "), first bad at "
                                       << coordinate(first, a.sizes()) << ": " << a.flatten()[first].item<double>()
                                       << ", expected " << b.flatten()[first].item<double>();
}

double psnr_db(const at::Tensor& actual, const at::Tensor& expected) {
  double error = (actual.to(at::kDouble) - expected.to(at::kDouble)).pow(2).mean().item<double>();
  return error == 0 ? std::numeric_limits<double>::infinity() : 10.0 * std::log10(255.0 * 255.0 / error);
}

::testing::AssertionResult matches_summary(const at::Tensor& actual, const GoldenSummary& golden, double tolerance) {
  at::Tensor x = actual.to(at::kDouble).flatten().contiguous();
  const int64_t n = x.numel();
  const double mean = x.mean().item<double>();
  const double rms = std::sqrt(x.pow(2).mean().item<double>());
  std::string wrong;
  if (!(std::abs(mean - golden.mean) <= tolerance)) wrong += fmt::format(" mean {} expected {};", mean, golden.mean);
  if (!(std::abs(rms - golden.rms) <= tolerance * std::max(1.0, golden.rms)))
    wrong += fmt::format(" rms {} expected {};", rms, golden.rms);
  const std::vector<int64_t> places = {0, 1, 2, 3, n / 3, n / 2, 2 * n / 3, n - 1};
  for (size_t i = 0; i < golden.elements.size(); ++i) {
    const double value = x[places.at(i)].item<double>();
    if (!(std::abs(value - golden.elements[i]) <= tolerance * std::max(1.0, std::abs(golden.elements[i]))))
      wrong += fmt::format(" element {} is {} expected {};", places[i], value, golden.elements[i]);
  }
  if (wrong.empty()) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << wrong;
}

std::string golden_path(const std::string& relative) { return std::string(STROBE_GOLDENS_DIR) + "/" + relative; }

}  // namespace strobe::test
