#include "kernels/block_attention/cases.h"

namespace strobe::kernels {
namespace {

AttentionCase make_case(const std::string& name, int32_t query_tokens, int32_t key_tokens, int32_t head_dim,
                        CaseLayout layout) {
  AttentionCase c;
  c.name = name;
  c.query_tokens = query_tokens;
  c.key_tokens = key_tokens;
  c.head_dim = head_dim;
  c.layout = layout;
  return c;
}

void add_sizes(std::vector<AttentionCase>& cases) {
  for (int32_t size : {1, 63, 64, 65, 127, 128, 129, 1000, 4095}) {
    const std::string suffix = "_" + std::to_string(size);
    cases.push_back(make_case("dense" + suffix, size, size, 128, CaseLayout::kDense));
    cases.push_back(make_case("random" + suffix, size, size, 64, CaseLayout::kRandom));
    cases.push_back(make_case("ragged" + suffix, size, size, 32, CaseLayout::kRandom));
    cases.back().query_block = cases.back().key_block = 0;
  }
  cases.push_back(make_case("random_17776", 17776, 17776, 64, CaseLayout::kRandom));
  cases.back().heads = cases.back().key_heads = 1;
  cases.back().density = 0.1;
  cases.push_back(make_case("more_keys", 100, 257, 128, CaseLayout::kDense));
  cases.push_back(make_case("fewer_keys", 257, 100, 64, CaseLayout::kRandom));
  cases.push_back(make_case("one_query", 1, 1000, 128, CaseLayout::kDense));
  for (int32_t width : {1, 3, 8, 15, 16, 17, 24, 31, 40, 48, 72, 80, 96, 100, 112, 160, 192, 255, 256}) {
    cases.push_back(make_case("width_" + std::to_string(width), 130, 145, width, CaseLayout::kRandom));
    cases.back().density = 0.7;
  }
}

void add_layouts(std::vector<AttentionCase>& cases) {
  const struct {
    const char* name;
    CaseLayout layout;
  } kinds[] = {{"full", CaseLayout::kFull},
               {"empty_rows", CaseLayout::kEmptyRows},
               {"all_empty", CaseLayout::kAllEmpty},
               {"one_block", CaseLayout::kOneBlock},
               {"column", CaseLayout::kColumn},
               {"diagonal", CaseLayout::kDiagonal},
               {"band", CaseLayout::kBand},
               {"first_and_last", CaseLayout::kFirstAndLast},
               {"text_tail", CaseLayout::kTextTail},
               {"levels", CaseLayout::kLevels},
               {"levels_and_full", CaseLayout::kLevelsAndFull}};
  const struct {
    const char* name;
    int32_t query, key;
  } blocks[] = {{"_64", 64, 64}, {"_128_64", 128, 64}, {"_32_128", 32, 128}, {"_ragged", 0, 0}, {"_300_24", 300, 24}};
  for (const auto& kind : kinds) {
    for (const auto& block : blocks) {
      cases.push_back(make_case(std::string(kind.name) + block.name, 700, 650, 64, kind.layout));
      cases.back().query_block = block.query;
      cases.back().key_block = block.key;
      cases.back().is_per_head = block.key != 128;
    }
  }
  for (double density : {0.02, 0.1, 0.5, 0.9, 0.98}) {
    cases.push_back(make_case("density_" + std::to_string(density).substr(0, 4), 960, 960, 128, CaseLayout::kRandom));
    cases.back().density = density;
  }
  for (int variant = 0; variant < 3; ++variant) {
    AttentionCase c = make_case("levels_no_bias", 520, 523, 128, CaseLayout::kLevels);
    c.has_multiplicity_bias = variant != 0;
    if (variant > 0) {
      c.name = variant == 1 ? "levels_replicated" : "levels_replicated_hidden";
      c.replicates_tail = true;
      c.bias = variant == 2 ? CaseBias::kHidden : CaseBias::kNone;
    }
    cases.push_back(c);
  }
}

void add_tokens(std::vector<AttentionCase>& cases) {
  for (CaseLayout layout : {CaseLayout::kTokensUnion, CaseLayout::kTokensGather}) {
    for (int32_t width : {64, 128}) {
      for (int32_t key_block : {100, 0}) {
        const std::string name = layout == CaseLayout::kTokensUnion ? "tokens_union_" : "tokens_gather_";
        AttentionCase c =
            make_case(name + std::to_string(width) + (key_block == 0 ? "_ragged" : ""), 1500, 1450, width, layout);
        c.query_block = 1;
        c.key_block = key_block;
        cases.push_back(c);
        c.name += "_hidden";
        c.bias = CaseBias::kHidden;
        c.memory = CaseMemory::kTokensOuter;
        cases.push_back(c);
      }
    }
  }
  cases.push_back(make_case("tokens_levels", 1300, 1290, 64, CaseLayout::kLevels));
  cases.back().query_block = 1;
  cases.push_back(make_case("short_blocks", 900, 900, 64, CaseLayout::kRandom));
  cases.back().query_block = 7;
  cases.push_back(make_case("tokens_empty_rows", 400, 300, 32, CaseLayout::kEmptyRows));
  cases.back().query_block = 1;
}

void add_orders(std::vector<AttentionCase>& cases) {
  const std::vector<AttentionCase> known = cases;
  for (const AttentionCase& one : known) {
    for (const char* name :
         {"levels_64", "levels_replicated_hidden", "tokens_union_64_hidden", "tokens_gather_64_hidden", "dense_bias",
          "random_bias", "random_row_scale", "random_lse_only", "band_ragged"}) {
      if (one.name != name) continue;
      cases.push_back(one);
      cases.back().name += "_ordered";
      cases.back().has_orders = true;
    }
  }
}

void add_data(std::vector<AttentionCase>& cases) {
  for (CaseLayout layout : {CaseLayout::kDense, CaseLayout::kRandom}) {
    const std::string prefix = layout == CaseLayout::kDense ? "dense_" : "random_";
    const AttentionCase plain = make_case(prefix, 300, 333, 64, layout);
    const auto add = [&](const char* name, auto change) {
      AttentionCase c = plain;
      c.name += name;
      change(c);
      cases.push_back(c);
    };
    add("batch", [](AttentionCase& c) { c.batch = 2; });
    add("tokens_outer", [](AttentionCase& c) { c.memory = CaseMemory::kTokensOuter, c.batch = 2; });
    add("strided", [](AttentionCase& c) { c.memory = CaseMemory::kStrided, c.batch = 2; });
    add("grouped_heads", [](AttentionCase& c) { c.heads = 6, c.key_heads = 2; });
    add("one_key_head", [](AttentionCase& c) { c.heads = 5, c.key_heads = 1, c.batch = 2; });
    add("shared_layout", [](AttentionCase& c) { c.is_per_head = false, c.heads = 4, c.key_heads = 2; });
    add("scale", [](AttentionCase& c) { c.scale_factor = 0.37; });
    add("large_logits", [](AttentionCase& c) { c.gain = 30; });
    add("constant_keys", [](AttentionCase& c) { c.has_constant_keys = true; });
    add("outlier_key", [](AttentionCase& c) { c.has_outlier_key = true; });
    add("row_scale", [](AttentionCase& c) { c.has_row_scale = true; });
    add("lse_only", [](AttentionCase& c) { c.is_lse_only = true; });
    add("bias", [](AttentionCase& c) { c.bias = CaseBias::kFinite, c.batch = 2; });
    add("hidden", [](AttentionCase& c) { c.bias = CaseBias::kHidden, c.batch = 2; });
    add("hidden_blocks", [](AttentionCase& c) { c.bias = CaseBias::kHiddenBlocks, c.batch = 2; });
  }
}

}  // namespace

std::vector<AttentionCase> attention_cases() {
  std::vector<AttentionCase> cases;
  add_sizes(cases);
  add_layouts(cases);
  add_tokens(cases);
  add_data(cases);
  add_orders(cases);
  const size_t count = cases.size();
  for (size_t i = 0; i < count; ++i) {
    AttentionCase c = cases[i];
    c.dtype = ScalarType::kBFloat16;
    c.name += "_bf16";
    cases.push_back(c);
  }
  return cases;
}

}  // namespace strobe::kernels
