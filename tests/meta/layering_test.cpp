// The architecture as a test: which folder may include what of ours, and that every list row has its file.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <vector>

namespace strobe {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = STROBE_SOURCE_DIR;

// Layer -> layers it may include, itself apart. A path belongs to the longest prefix.
const std::map<std::string, std::set<std::string>> kAllowed = {
    {"kernels", {}},
    {"core", {"kernels"}},
    {"attention", {"kernels", "core"}},
    {"caching", {"kernels", "core"}},
    {"sampling", {"kernels", "core"}},
    {"config", {"core"}},
    {"weights", {"core"}},
    {"report", {"core"}},
    {"video", {"core"}},
    {"metrics", {"core"}},
    {"models", {"core", "attention", "caching", "weights"}},
    {"training", {"core", "attention", "models", "sampling", "weights"}},
    {"editing", {"core", "attention", "models"}},
    {"pipelines",
     {"kernels", "core", "attention", "caching", "sampling", "config", "weights", "report", "video", "metrics",
      "models", "training", "editing"}},
    {"tools",
     {"kernels", "core", "attention", "caching", "sampling", "config", "weights", "report", "video", "metrics",
      "models", "training", "editing", "pipelines"}},
};

// Third-party headers that only some layers may touch.
const std::vector<std::pair<std::regex, std::set<std::string>>> kThirdParty = {
    {std::regex("^(ATen|c10|torch)/"),
     {"core", "attention", "caching", "sampling", "weights", "video", "metrics", "models", "training", "editing",
      "pipelines", "tools"}},
    {std::regex("^nlohmann/"), {"weights", "report"}},
    {std::regex("^yaml-cpp/"), {"config"}},
    {std::regex("^opencv2/"), {"video", "metrics", "training"}},
    {std::regex("^lib(av|sw)"), {"video"}},
    {std::regex("^utf8proc"), {"models"}},
    {std::regex("^CLI/"), {"tools"}},
};

struct Include {
  fs::path file;
  std::string target;
  bool is_quoted;
};

std::vector<fs::path> our_files() {
  std::vector<fs::path> files;
  for (const char* top : {"kernels", "src", "pipelines", "tools"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / top)) {
      const std::string extension = entry.path().extension();
      if (extension == ".h" || extension == ".cpp" || extension == ".cu" || extension == ".cuh")
        files.push_back(entry.path());
    }
  }
  return files;
}

std::string layer_of(const fs::path& relative) {
  auto part = relative.begin();
  if (*part == "src") ++part;
  return part->string();
}

std::vector<Include> includes() {
  static const std::regex line_form("^\\s*#\\s*include\\s*([<\"])([^>\"]+)[>\"].*");
  std::vector<Include> all;
  for (const fs::path& file : our_files()) {
    std::ifstream in(file);
    std::smatch match;
    for (std::string line; std::getline(in, line);) {
      if (std::regex_match(line, match, line_form))
        all.push_back({fs::relative(file, kRoot), match[2], match[1] == "\""});
    }
  }
  return all;
}

TEST(Layering, every_include_follows_the_arrows) {
  const std::vector<Include> all = includes();
  ASSERT_GT(all.size(), 100U);
  for (const Include& include : all) {
    if (!include.is_quoted) continue;
    const std::string from = layer_of(include.file);
    const std::string to = fs::path(include.target).begin()->string();
    ASSERT_TRUE(kAllowed.contains(from)) << include.file << " is in a folder that no layer owns";
    if (from == to) continue;
    EXPECT_TRUE(kAllowed.at(from).contains(to)) << include.file << " includes " << include.target;
  }
}

TEST(Layering, third_party_headers_stay_in_their_layers) {
  for (const Include& include : includes()) {
    for (const auto& [form, layers] : kThirdParty) {
      if (!std::regex_search(include.target, form)) continue;
      EXPECT_TRUE(layers.contains(layer_of(include.file))) << include.file << " includes " << include.target;
    }
  }
}

TEST(Layering, a_method_never_names_a_model_nor_a_model_a_method) {
  const std::regex models("\\b(wan|cogvideox|hunyuan|mochi)\\b", std::regex::icase);
  const std::regex methods("\\b(radial|vmoba|adaspa|sparsed|psa)\\b", std::regex::icase);
  for (const fs::path& file : our_files()) {
    const fs::path relative = fs::relative(file, kRoot);
    const std::string layer = layer_of(relative);
    if (layer != "attention" && layer != "models") continue;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      const std::string code = line.substr(0, line.find("//"));
      EXPECT_FALSE(std::regex_search(code, layer == "attention" ? models : methods)) << relative << ": " << line;
    }
  }
}

TEST(Layering, every_row_of_a_list_has_its_file_and_every_listed_folder_its_rows) {
  const std::map<std::string, std::string> file_of_row = {
      {"src/attention/patterns/patterns.inc", "{}.cpp"},
      {"src/attention/backends/backends.inc", "{}.cpp"},
      {"src/caching/step_caches.inc", "{}.cpp"},
      {"src/sampling/samplers.inc", "{}.cpp"},
      {"src/sampling/guiders.inc", "{}.cpp"},
      {"src/models/models.inc", "{}/README.md"},
  };
  static const std::regex row("^STROBE_[A-Z_]+\\((\\w+)\\)$");
  for (const auto& [list, form] : file_of_row) {
    std::ifstream in(kRoot / list);
    ASSERT_TRUE(in) << list;
    int rows = 0;
    std::smatch match;
    for (std::string line; std::getline(in, line);) {
      if (!std::regex_match(line, match, row)) continue;
      ++rows;
      std::string file = form;
      file.replace(file.find("{}"), 2, match[1].str());
      EXPECT_TRUE(fs::exists(kRoot / fs::path(list).parent_path() / file)) << list << ": row " << match[1];
    }
    EXPECT_GT(rows, 0) << list;
  }
}

TEST(Layout, sources_stay_under_500_lines) {
  for (const fs::path& file : our_files()) {
    std::ifstream in(file);
    int lines = 0;
    for (std::string line; std::getline(in, line);) ++lines;
    EXPECT_LE(lines, 500) << fs::relative(file, kRoot);
  }
}

TEST(Layout, every_header_begins_with_what_it_is) {
  for (const fs::path& file : our_files()) {
    if (file.extension() != ".h") continue;
    std::ifstream in(file);
    std::string first;
    std::getline(in, first);
    EXPECT_TRUE(first.starts_with("// ")) << fs::relative(file, kRoot);
  }
}

TEST(Layout, every_folder_has_a_readme) {
  for (const char* folder :
       {"kernels", "src", "src/core", "src/attention", "src/attention/patterns", "src/caching", "src/sampling",
        "src/weights", "src/models", "src/models/wan", "src/models/text", "src/models/vae", "src/training/sprites",
        "src/video", "pipelines", "tools", "tests", "tests/goldens"}) {
    EXPECT_TRUE(fs::exists(kRoot / folder / "README.md")) << folder;
  }
}

}  // namespace
}  // namespace strobe
