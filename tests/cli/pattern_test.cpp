// strobe pattern and strobe bench as a user runs them.
#include "core/torch.h"
// After the precompiled header.
#include <gmock/gmock.h>

#include "tests/cli/attention_methods.h"
#include "tests/support/compare.h"
#include "weights/json.h"
#include "weights/safetensors.h"

namespace strobe {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;

using Tensors = std::map<std::string, at::Tensor>;

constexpr const char* kWindow = "window:window=1/1/1,block_size=8";

// Tensors of 5 x 2 x 4 patches.
Tensors qkv(int64_t batch, int64_t heads, int64_t key_heads, int64_t tokens = 40) {
  at::manual_seed(tokens);
  return {{"q", at::randn({batch, heads, tokens, 16})},
          {"k", at::randn({batch, key_heads, tokens, 16})},
          {"v", at::randn({batch, key_heads, tokens, 16})}};
}

// Attention with every pair of tokens but those of dropped blocks; order: raster index at each position.
at::Tensor masked_attention(const Tensors& in, const at::Tensor& keeps, int64_t query_heads) {
  const int64_t shared = query_heads / in.at("k").size(1);
  const at::Tensor q = in.at("q").to(at::kDouble);
  const at::Tensor k = in.at("k").to(at::kDouble).repeat_interleave(shared, 1);
  const at::Tensor v = in.at("v").to(at::kDouble).repeat_interleave(shared, 1);
  at::Tensor scores = at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(q.size(3)));
  scores = scores.masked_fill(keeps.logical_not(), -std::numeric_limits<double>::infinity());
  return at::matmul(scores.softmax(-1), v).to(at::kFloat);
}

struct PatternCli : test::CliAttention {
  void write(const std::string& name, const Tensors& tensors) const {
    weights::save_safetensors(folder / name, tensors, {});
  }
  test::ProcessResult run(const std::string& file, const std::string& rule,
                          const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments = {
        "pattern", "run", "--qkv", file, "--attention", rule, "--overwrite", "-o", "out.safetensors", "--threads", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return strobe(arguments);
  }
  Tensors read(const std::string& name = "out.safetensors") const {
    const auto source = weights::open_safetensors(folder / name);
    Tensors tensors;
    for (const weights::TensorInfo& info : source->tensors()) {
      tensors.emplace(info.name, source->read(info.name).clone());
    }
    return tensors;
  }
  std::map<std::string, std::string> header() const {
    return weights::open_safetensors(folder / "out.safetensors")->metadata();
  }
  static std::vector<std::string> names(const Tensors& tensors) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors) names.push_back(name);
    return names;
  }
  static const std::vector<std::string> grid;
};
const std::vector<std::string> PatternCli::grid = {"--grid", "5,2,4"};

TEST_F(PatternCli, runs_a_method_on_tensors_of_a_file) {
  const Tensors in = qkv(1, 4, 2);
  write("in.safetensors", in);
  const auto result = run("in.safetensors", kWindow, grid);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("window: 5 x 5 blocks, 1 head, density 0.5200"));
  const Tensors out = read();
  EXPECT_THAT(names(out), ElementsAre("key_offsets", "level", "lse", "out", "query_offsets"));
  EXPECT_EQ(out.at("level").sizes(), at::IntArrayRef({1, 5, 5}));
  EXPECT_EQ(out.at("level").scalar_type(), at::kByte);
  EXPECT_EQ(out.at("lse").sizes(), at::IntArrayRef({1, 4, 40}));
  EXPECT_EQ(out.at("query_offsets").scalar_type(), at::kInt);
  const at::Tensor keeps = out.at("level").gt(0).repeat_interleave(8, 1).repeat_interleave(8, 2).unsqueeze(0);
  EXPECT_TRUE(at::allclose(out.at("out"), masked_attention(in, keeps, 4), 1e-5, 1e-5));
  const auto head = header();
  EXPECT_EQ(head.at("method"), "window");
  EXPECT_THAT(head.at("options"), HasSubstr("window=1/1/1,block_size=8"));
  EXPECT_EQ(head.at("density"), "0.52");
  EXPECT_THAT(head.at("backend"), HasSubstr("block_attention"));
  EXPECT_TRUE(head.contains("selection_ms") && head.contains("attention_ms"));
}

TEST_F(PatternCli, gives_shared_key_heads_to_every_method) {
  Tensors in = qkv(1, 4, 2);
  write("shared.safetensors", in);
  for (const char* name : {"k", "v"}) in[name] = in.at(name).repeat_interleave(2, 1);
  write("whole.safetensors", in);
  for (const std::string& method : sparse_methods()) {
    SCOPED_TRACE(method);
    std::vector<std::string> more = grid;
    const auto shared = run("shared.safetensors", sparse_rule(method), more);
    ASSERT_EQ(shared.exit_code, 0) << shared.err;
    const Tensors of_shared = read();
    ASSERT_EQ(run("whole.safetensors", sparse_rule(method), more).exit_code, 0);
    const Tensors of_whole = read();
    EXPECT_TRUE(at::equal(of_shared.at("level"), of_whole.at("level")));
    EXPECT_TRUE(at::allclose(of_shared.at("out"), of_whole.at("out"), 1e-5, 1e-5));
    // The plan alone is the plan of the run.
    more.push_back("--plan-only");
    const auto plan = run("shared.safetensors", sparse_rule(method), more);
    ASSERT_EQ(plan.exit_code, 0) << plan.err;
    EXPECT_TRUE(at::equal(read().at("level"), of_shared.at("level")));
    EXPECT_FALSE(read().contains("out"));
  }
}

TEST_F(PatternCli, runs_later_calls_and_several_items) {
  Tensors in = qkv(2, 2, 2);
  in["q2"] = at::randn_like(in.at("q"));
  in["k2"] = at::randn_like(in.at("k"));
  write("in.safetensors", in);
  for (const std::string& method : sparse_methods()) {
    SCOPED_TRACE(method);
    const auto result = run("in.safetensors", sparse_rule(method), {"--grid", "5,2,4", "--call-steps", "10,30"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    EXPECT_THAT(result.out, AllOf(HasSubstr("call 1 " + method), HasSubstr("call 2 " + method)));
    const Tensors out = read();
    EXPECT_THAT(names(out), IsSupersetOf({"level", "level2", "lse", "lse2", "out", "out2"}));
    EXPECT_EQ(out.at("level").dim(), 4);
    EXPECT_EQ(out.at("level").size(0), 2);
    EXPECT_EQ(out.at("out2").sizes(), at::IntArrayRef({2, 2, 40, 16}));
    EXPECT_EQ(out.at("lse2").sizes(), at::IntArrayRef({2, 2, 40}));
    ASSERT_EQ(run("in.safetensors", sparse_rule(method), {"--grid", "5,2,4", "--call-steps", "10,30", "--plan-only"})
                  .exit_code,
              0);
    EXPECT_TRUE(at::equal(read().at("level"), out.at("level")));
    EXPECT_TRUE(at::equal(read().at("level2"), out.at("level2")));
  }
  for (const char* steps : {"10", "10,x", "10,50"}) {
    const auto result = run("in.safetensors", kWindow, {"--grid", "5,2,4", "--call-steps", steps});
    EXPECT_EQ(result.exit_code, 2) << steps << result.err;
    EXPECT_THAT(result.err, HasSubstr("call-steps"));
  }
}

TEST_F(PatternCli, keeps_text_at_either_end) {
  const Tensors in = qkv(1, 2, 2, 46);
  write("in.safetensors", in);
  for (const std::string side : {"start", "end"}) {
    const auto result = run("in.safetensors", kWindow, {"--grid", "5,2,4", "--text", "6:" + side});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const Tensors out = read();
    // Blocks of video and one of text, which sees and is seen by all.
    EXPECT_EQ(out.at("level").sizes(), at::IntArrayRef({1, 6, 6}));
    EXPECT_TRUE(out.at("level").select(1, 5).gt(0).all().item<bool>());
    EXPECT_TRUE(out.at("level").select(2, 5).gt(0).all().item<bool>());
    EXPECT_EQ(out.contains("q_order"), side == "start");  // where the tokens are brought into another order
    const at::Tensor sizes = out.at("key_offsets").diff().to(at::kLong);
    const at::Tensor in_order = out.at("level").gt(0)[0].repeat_interleave(sizes, 0).repeat_interleave(sizes, 1);
    const at::Tensor order = side == "start" ? out.at("q_order").to(at::kLong) : at::arange(46);
    const at::Tensor keeps =
        at::zeros({46, 46}, at::kBool).index_put({order.unsqueeze(1), order.unsqueeze(0)}, in_order);
    EXPECT_TRUE(at::allclose(out.at("out"), masked_attention(in, keeps, 2), 1e-5, 1e-5)) << side;
  }
}

TEST_F(PatternCli, plans_without_tensors_where_the_grid_is_enough) {
  const auto result = strobe({"pattern", "run", "--plan-only", "--attention", "radial:steps=20-30,sigma_max=0.1",
                              "--grid", "5,2,4", "--block-size", "8", "--heads", "3", "-o", "out.safetensors"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(read().at("level").sizes(), at::IntArrayRef({3, 5, 5}));
  // With a step, the rule's own first steps and layers are dense.
  for (const std::vector<std::string>& where :
       std::vector<std::vector<std::string>>{{"--step", "3"}, {"--step", "30", "--layer", "0", "--layers", "4"}}) {
    std::vector<std::string> arguments = {"pattern", "run",    "--plan-only",   "--attention",
                                          "radial",  "--grid", "5,2,4",         "--block-size",
                                          "16",      "-o",     "b.safetensors", "--overwrite"};
    arguments.insert(arguments.end(), where.begin(), where.end());
    const auto dense = strobe(arguments);
    EXPECT_THAT(dense.out, HasSubstr("dense")) << dense.err;
    EXPECT_EQ(read("b.safetensors").at("level").sizes(), at::IntArrayRef({1, 1, 1}));
  }
  const auto shown = strobe({"pattern", "show", "--attention", kWindow, "--grid", "5,2,4"});
  EXPECT_EQ(shown.exit_code, 0) << shown.err;
  EXPECT_THAT(shown.out, HasSubstr("##   \n###  \n ### \n  ###\n   ##\n"));
  const auto reads = strobe({"pattern", "run", "--plan-only", "--attention", "vmoba", "--grid", "5,2,4"});
  EXPECT_EQ(reads.exit_code, 2);
  EXPECT_THAT(reads.err, HasSubstr("this method reads q and k; give --qkv"));
}

TEST_F(PatternCli, lists_methods_options_and_presets) {
  const auto all = strobe({"pattern", "list"});
  EXPECT_EQ(all.exit_code, 0);
  for (const char* part : {"dense", "radial", "window", "vmoba", "presets: wan_14b"})
    EXPECT_THAT(all.out, HasSubstr(part));
  for (const std::string& method : sparse_methods()) {
    const auto one = strobe({"pattern", "list", method});
    EXPECT_EQ(one.exit_code, 0);
    EXPECT_THAT(one.out, AllOf(HasSubstr("options"), HasSubstr("dense_steps"), HasSubstr("block_size")));
  }
  const auto radial = strobe({"pattern", "list", "radial"});
  EXPECT_THAT(radial.out, AllOf(HasSubstr("decay_factor         number in"), HasSubstr("preset=wan_14b")));
  const auto wrong = strobe({"pattern", "list", "radail"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.err, HasSubstr("did you mean 'radial'?"));
}

TEST_F(PatternCli, refuses_tensors_and_grids_that_do_not_fit) {
  Tensors in = qkv(1, 2, 2);
  write("in.safetensors", in);
  const auto variant = [&](const std::string& name, const std::function<void(Tensors&)>& change) {
    Tensors changed;
    for (const auto& [key, tensor] : in) changed.emplace(key, tensor.clone());
    change(changed);
    write(name, changed);
  };
  variant("no_k.safetensors", [](Tensors& t) { t.erase("k"); });
  variant("no_v.safetensors", [](Tensors& t) { t.erase("v"); });
  variant("nan.safetensors", [](Tensors& t) { t["q"].view(-1)[3] = std::nan(""); });
  variant("heads.safetensors", [](Tensors& t) { t["k"] = t["v"] = at::randn({1, 3, 40, 16}); });
  variant("flat.safetensors", [](Tensors& t) { t["q"] = t["q"][0].clone(); });
  variant("width.safetensors", [](Tensors& t) { t["v"] = at::randn({1, 2, 40, 8}); });
  variant("later.safetensors", [](Tensors& t) { t["q2"] = t["k2"] = at::randn({1, 2, 20, 16}); });
  const std::vector<std::pair<std::string, std::string>> files = {
      {"no_k.safetensors", "k: no such tensor"},
      {"no_v.safetensors", "no tensor 'v'; --plan-only does without"},
      {"nan.safetensors", "q: holds NaN or infinity"},
      {"heads.safetensors", "k: expected [B, Hk, N, D] with Hk a divisor of H beside q [1, 2, 40, 16]"},
      {"flat.safetensors", "q: expected [B, H, N, D], found [2, 40, 16]"},
      {"width.safetensors", "v: expected the shape of k"},
      {"later.safetensors", "q2: expected [1, 2, 40, 16] as q"},
      {"missing.safetensors", "missing.safetensors"}};
  for (const auto& [file, message] : files) {
    const auto result = run(file, kWindow, grid);
    EXPECT_EQ(result.exit_code, 1) << file;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  EXPECT_EQ(run("no_v.safetensors", kWindow, {"--grid", "5,2,4", "--plan-only"}).exit_code, 0);
  const std::vector<std::pair<std::vector<std::string>, std::string>> flags = {
      {{"--grid", "5,2,5"}, "are 50 tokens, q has 40"},
      {{"--grid", "5,2,4", "--text", "8:middle"}, "expected TOKENS, TOKENS:end or TOKENS:start"},
      {{"--grid", "5,2,4", "--layer", "3", "--layers", "3"}, "expected less than --layers 3"},
      {{"--grid", "5,2,4", "--block-size", "8"}, "block_size is also given by its own flag"},
      {{"--grid", "5,2,4", "--attention", "radial"}, "expected one method, got 2"}};
  for (const auto& [more, message] : flags) {
    const auto result = run("in.safetensors", kWindow, more);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  const std::vector<std::pair<std::string, std::string>> rules = {
      {"window:block_size=48", "a block of 48 is larger than the sequence of 40 tokens"},
      {"sparsed:block_size=8,groups=0/40", "sparsed: groups: token 40 is beyond the 40 tokens"},
      {"psa:block_size=12", "psa: block_size: expected a multiple of 8, found 12"},
      {"adaspa:sparsity=1.5", "adaspa: sparsity: expected a number in [0, 1], found '1.5'"},
      {"vmoba:block_size=8", "blocks are given by chunk_1d, chunk_2d and chunk_3d"}};
  for (const auto& [rule, message] : rules) {
    const auto result = run("in.safetensors", rule, grid);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  const auto beyond = run("in.safetensors", "window:block_size=8,layers=7", {"--grid", "5,2,4", "--step", "20"});
  EXPECT_EQ(beyond.exit_code, 2);
  EXPECT_THAT(beyond.err, HasSubstr("layers=7: this run has the layers 0 to 0"));
  const auto forced = run("in.safetensors", kWindow, {"--grid", "5,2,4", "--attention-backend", "torch_dense"});
  EXPECT_EQ(forced.exit_code, 3);
  EXPECT_THAT(forced.err, HasSubstr("torch_dense: dense attention only"));
}

TEST_F(PatternCli, warns_of_rows_that_keep_nothing_and_refuses_them_in_a_step) {
  write("in.safetensors", qkv(1, 2, 2));
  const std::string rule = "radial:mode=parity,block_size=40";
  const auto warned = run("in.safetensors", rule, grid);
  EXPECT_EQ(warned.exit_code, 0);
  EXPECT_THAT(warned.err, HasSubstr("query blocks that keep no key"));
  EXPECT_TRUE(at::equal(read().at("out"), at::zeros({1, 2, 40, 16})));
  const auto refused = run("in.safetensors", rule, {"--grid", "5,2,4", "--step", "30", "--layer", "1"});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("keeps no key block"));
}

TEST_F(PatternCli, measures_attention_in_rows_with_keys_that_stay) {
  std::vector<std::string> arguments = {
      "bench",     "attention", "--tokens",  "256",   "--rounds",     "2",
      "--json",    "-",         "--against", "sdpa",  "--block-size", "32",
      "--density", "0.25,1",    "--grid",    "4,8,8", "--attention",  "window:window=1/1/1,block_size=16"};
  const auto result = strobe(arguments);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const ConfigNode node = weights::parse_json(result.out, "bench");
  EXPECT_EQ(node.at("schema").as_integer(), 1);
  EXPECT_TRUE(node.find("machine") && node.find("build"));
  const ConfigNode::List& rows = node.at("rows").as_list();
  ASSERT_EQ(rows.size(), 4U);  // dense, random blocks, window, sdpa
  for (const ConfigNode& row : rows) {
    for (const char* key : {"kernel", "head_dim", "tokens", "heads", "block_size", "density_asked", "density_delivered",
                            "dtype", "threads", "ms_median", "ms_p10", "ms_p90", "useful_gflops", "peak_gflops",
                            "share_of_peak", "share_of_peak_best", "ratio_to_dense", "ratio_to_sdpa", "selection_ms"}) {
      EXPECT_NE(row.find(key), nullptr) << key;
    }
    EXPECT_FALSE(row.at("kernel").as_string().empty());
    EXPECT_GT(row.at("ms_median").as_number(), 0);
    EXPECT_GT(row.at("ratio_to_sdpa").as_number(), 0);
  }
  EXPECT_EQ(rows[0].at("ratio_to_dense").as_number(), 1);
  EXPECT_LT(rows[2].at("density_delivered").as_number(), 1);
  EXPECT_EQ(rows[3].at("kernel").as_string(), "torch_sdpa");

  // A method whose own rule made it dense is not measured as that method.
  const auto full = strobe({"bench", "attention", "--tokens", "64", "--rounds", "1", "--grid", "4,4,4", "--density",
                            "1", "--attention", "window:window=9/9/9"});
  EXPECT_THAT(full.out, HasSubstr("not as asked: every block kept"));
  EXPECT_EQ(strobe({"bench", "attention", "--tokens", "64", "--density", "2"}).exit_code, 2);
  const std::vector<std::vector<std::string>> refused = {{"--block-size", "128", "--density", "0.5"},
                                                         {"--attention", "window:block_size=128"},
                                                         {"--attention", "window:block_size=8,layers=0"}};
  for (const std::vector<std::string>& more : refused) {
    std::vector<std::string> command = {"bench", "attention", "--tokens", "64", "--rounds", "1", "--grid", "4,4,4"};
    command.insert(command.end(), more.begin(), more.end());
    EXPECT_EQ(strobe(command).exit_code, 2) << more.back();
  }
  EXPECT_EQ(strobe({"bench", "attention", "--tokens", "64", "--grid", "4,4,5", "--attention", kWindow}).exit_code, 2);
}

}  // namespace
}  // namespace strobe
