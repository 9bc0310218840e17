#include "tools/kernel_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <string>
#include <vector>

#include "kernels/block_attention/block_attention.h"
#include "kernels/block_score/block_score.h"
#include "kernels/common/case_random.h"
#include "kernels/common/fma_peak.h"
#include "kernels/common/machine.h"
#include "kernels/common/parallel.h"

namespace strobe {
namespace {

using namespace kernels;

constexpr int kHeads = 2;

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Of all threads of this process: what neighbours take from us is not in it.
double cpu_seconds() {
  timespec t = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Variant {
  std::string name;
  int query_block = 0;  // 0: dense
  int key_block = 0;
  double density = 1;
  std::vector<int32_t> query_offsets, key_offsets;
  std::vector<uint64_t> plane;
  BlockLayoutView layout;
  double pairs = 0;
  std::vector<double> wall, cpu, share;  // of each round; share by CPU time
};

std::vector<int32_t> uniform_offsets(int tokens, int block) {
  std::vector<int32_t> offsets;
  for (int t = 0; t < tokens; t += block) offsets.push_back(t);
  offsets.push_back(tokens);
  return offsets;
}

void make_layout(Variant& v, int tokens) {
  v.query_offsets = uniform_offsets(tokens, v.query_block);
  v.key_offsets = uniform_offsets(tokens, v.key_block);
  BlockLayoutView& layout = v.layout;
  layout.heads = kHeads;
  layout.query_blocks = static_cast<int32_t>(v.query_offsets.size()) - 1;
  layout.key_blocks = static_cast<int32_t>(v.key_offsets.size()) - 1;
  layout.words = (layout.key_blocks + 63) / 64;
  layout.query_offsets = v.query_offsets.data();
  layout.key_offsets = v.key_offsets.data();
  v.plane.assign(int64_t{kHeads} * layout.query_blocks * layout.words, 0);
  CaseRandom random(7);
  for (int64_t row = 0; row < int64_t{kHeads} * layout.query_blocks; ++row) {
    for (int32_t j = 0; j < layout.key_blocks; ++j) {
      if (random.uniform() < v.density) v.plane[row * layout.words + j / 64] |= uint64_t{1} << (j % 64);
    }
  }
  layout.planes[0] = v.plane.data();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Tensors {
  std::vector<float> q, k, v, out, lse;
  int tokens, head_dim;

  Tensors(int num_tokens, int width) : tokens(num_tokens), head_dim(width) {
    CaseRandom random(1);
    for (auto* x : {&q, &k, &v, &out}) {
      x->resize(int64_t{kHeads} * tokens * head_dim);
      for (float& e : *x) e = random.normal();
    }
    lse.assign(int64_t{kHeads} * tokens, 0);
  }
  TensorView view(std::vector<float>& x, int rows) const {
    return {x.data(), int64_t{kHeads} * rows * head_dim, int64_t{rows} * head_dim, head_dim};
  }
};

BlockAttentionParams attention_params(Tensors& t, const Parallel& parallel) {
  BlockAttentionParams p;
  p.batch = 1, p.heads = p.key_heads = kHeads;
  p.query_tokens = p.key_tokens = t.tokens, p.head_dim = t.head_dim;
  p.q = t.view(t.q, t.tokens), p.k = t.view(t.k, t.tokens), p.v = t.view(t.v, t.tokens);
  p.out = {t.out.data(), 0, int64_t{t.tokens} * t.head_dim, t.head_dim};
  p.lse = t.lse.data();
  p.scale = 1 / std::sqrt(static_cast<double>(t.head_dim));
  p.parallel = parallel;
  return p;
}

// One round: the peak before and after, the call between. `flops` are useful ones.
template <class Call>
void time_call(Variant& v, double flops, const Parallel& parallel, Call call) {
  const FmaLoop& loop = widest_fma_loop(ScalarType::kFloat32);
  const double before = measure_fma_peak(loop, parallel);
  const double wall = wall_seconds(), cpu = cpu_seconds();
  call();
  const double cpu_used = (cpu_seconds() - cpu) / parallel.workers;
  v.wall.push_back(wall_seconds() - wall);
  v.cpu.push_back(cpu_used);
  const double after = measure_fma_peak(loop, parallel);
  v.share.push_back(flops / cpu_used / ((before + after) / 2));
}

void print(const Variant& v, const Variant& dense, double density, int head_dim, int workers) {
  const double best = *std::min_element(v.cpu.begin(), v.cpu.end());
  const double dense_best = *std::min_element(dense.cpu.begin(), dense.cpu.end());
  std::printf("d=%-3d workers %d  %-26s density %.3f  wall %8.2f ms  cpu %8.2f ms  share best %.3f median %.3f",
              head_dim, workers, v.name.c_str(), density, median(v.wall) * 1e3, median(v.cpu) * 1e3,
              *std::max_element(v.share.begin(), v.share.end()), median(v.share));
  std::printf("  dense x density / time: best %.3f median %.3f\n", dense_best * density / best,
              median(dense.cpu) * density / median(v.cpu));
}

// PSA's question: a quarter of the rows against a quarter of the keys of each block of 64.
std::vector<int32_t> every_fourth(int tokens) {
  std::vector<int32_t> list;
  for (int i = 0; i < kHeads * tokens / 4; ++i) list.push_back(i % (tokens / 4) * 4 + 2);
  return list;
}

void run_scores(Tensors& t, Variant& importance, Variant& mass, const Parallel& parallel) {
  const BlockScoreKernel& kernel =
      *std::find_if(block_score_kernels().begin(), block_score_kernels().end(),
                    [&](const BlockScoreKernel& k) { return k.refusal(ScalarType::kFloat32, t.head_dim).empty(); });
  const int blocks = t.tokens / 64, rows = blocks * 16;
  static std::vector<float> out;
  out.resize(int64_t{kHeads} * blocks * blocks);
  std::vector<float> sums(int64_t{kHeads} * t.tokens);
  BlockImportanceParams p;
  p.heads = kHeads, p.head_dim = t.head_dim;
  p.q = t.view(t.q, t.tokens), p.k = t.view(t.k, t.tokens);
  p.scale = 1 / std::sqrt(static_cast<double>(t.head_dim));
  const std::vector<int32_t> sampled = every_fourth(blocks * 64);
  p.query_blocks = p.key_blocks = blocks, p.query_samples = p.key_samples = 16;
  p.query_tokens = p.key_tokens = sampled.data();
  p.importance = out.data();
  p.parallel = parallel;
  const double flops = 2.0 * kHeads * t.head_dim;
  time_call(importance, flops * rows * rows, parallel, [&] { kernel.importance(p); });
  importance.pairs = static_cast<double>(kHeads) * rows * rows / 2;

  BlockMassParams m;
  m.batch = 1, m.heads = m.key_heads = kHeads;
  m.query_tokens = m.key_tokens = t.tokens, m.head_dim = t.head_dim;
  m.q = t.view(t.q, t.tokens), m.k = t.view(t.k, t.tokens);
  m.scale = p.scale;
  const std::vector<int32_t> whole = uniform_offsets(t.tokens, 64);
  m.query_blocks = m.key_blocks = blocks, m.query_offsets = m.key_offsets = whole.data();
  m.lse = t.lse.data(), m.mass = out.data(), m.row_sum = sums.data();
  m.parallel = parallel;
  time_call(mass, flops * t.tokens * t.tokens, parallel, [&] { kernel.mass(m); });
  mass.pairs = static_cast<double>(kHeads) * t.tokens * t.tokens / 2;
}

void run_width(const KernelBenchOptions& options, int head_dim, const Parallel& parallel) {
  Tensors tensors(options.tokens, head_dim);
  std::vector<Variant> variants;
  const auto add = [&](const char* name, int query_block, int key_block, double density) {
    Variant v;
    v.name = name;
    v.query_block = query_block, v.key_block = key_block, v.density = density;
    variants.push_back(v);
  };
  add("dense", 0, 0, 1);
  add("full 64", 64, 64, 1);
  for (double density : {0.2, 0.1, 0.05}) add("blocks 64", 64, 64, density);
  for (double density : {0.1, 0.05}) add("blocks 128", 128, 128, density);
  add("tokens, keys 256", 1, 256, 0.25);
  for (Variant& v : variants) {
    if (v.query_block > 0) make_layout(v, options.tokens);
  }
  Variant importance, mass;
  importance.name = "importance, 1/16 of q k";
  mass.name = "block mass";
  BlockAttentionParams params = attention_params(tensors, parallel);
  for (const BlockAttentionKernel& candidate : block_attention_kernels()) {
    if (!candidate.refusal(params).empty()) continue;
    std::printf("%s\n", candidate.name);
    for (int round = 0; round < options.rounds; ++round) {
      for (Variant& v : variants) {
        params.layout = v.query_block > 0 ? &v.layout : nullptr;
        v.pairs = count_pairs(params);
        time_call(v, 4.0 * head_dim * v.pairs, parallel, [&] { candidate.run(params); });
      }
      run_scores(tensors, importance, mass, parallel);
    }
    break;
  }
  const double all = static_cast<double>(kHeads) * options.tokens * options.tokens;
  for (const Variant& v : variants) print(v, variants[0], v.pairs / all, head_dim, parallel.workers);
  print(importance, variants[0], importance.pairs / all, head_dim, parallel.workers);
  print(mass, variants[0], mass.pairs / all, head_dim, parallel.workers);
  const double cost = median(importance.cpu) / median(variants[0].cpu);
  std::printf("    importance costs %.2f %% of dense (the product alone is 3.125 %%)\n", cost * 100);
}

}  // namespace

void run_kernel_bench(const KernelBenchOptions& options) {
  ThreadPool pool(machine().cores);
  std::vector<int> workers = {1, machine().cores};
  if (options.workers > 0) workers = {std::min(options.workers, machine().cores)};
  for (int count : workers) {
    const Parallel parallel = pool.parallel(count);
    for (const FmaLoop& loop : fma_loops()) {
      std::printf("%s, %d workers: %.1f GFLOP/s\n", loop.name, count, measure_fma_peak(loop, parallel) / 1e9);
    }
    for (int width : {128, 64, 32}) {
      if (options.head_dim == 0 || options.head_dim == width) run_width(options, width, parallel);
    }
  }
}

}  // namespace strobe
