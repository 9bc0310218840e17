#include "config/compose.h"

#include <algorithm>

#include "config/yaml_loader.h"
#include "core/nearest.h"
#include "core/text_file.h"

namespace strobe::config {
namespace {

namespace fs = std::filesystem;
constexpr size_t kMaxParents = 16;

fs::path whole_path(const fs::path& path) {
  std::error_code error;
  const fs::path whole = fs::weakly_canonical(path, error);
  return error ? path : whole;
}

// As seen from the working folder where that is shorter to read.
fs::path readable(const fs::path& path) {
  std::error_code error;
  const fs::path relative = fs::relative(path, error);
  return error || relative.empty() || *relative.begin() == ".." ? path : relative;
}

// The file without `schema` and `extends`, and the parent that it names.
struct File {
  fs::path path;
  ConfigNode map;
  fs::path parent;  // empty: none
};

File load_file(const fs::path& path) {
  File file{.path = path, .map = ConfigNode::map(), .parent = {}};
  const ConfigNode root = load_yaml(path);
  if (!root.is_map()) {
    throw ConfigError(fmt::format("{}:1:1: expected a map with `schema: {}` on top, got {}", path.string(), kSchema,
                                  root.describe()));
  }
  const ConfigNode* schema = root.find("schema");
  if (!schema) throw ConfigError(fmt::format("{}:1:1: `schema: {}` is missing on top", path.string(), kSchema));
  if (!schema->is_integer() || schema->as_integer() != kSchema) {
    schema->fail(fmt::format("expected {}, what this build reads, got {}", kSchema, schema->describe()));
  }
  for (const auto& [name, value] : root.as_map()) {
    if (name == "schema") continue;
    if (name == "extends") {
      if (value.as_string().empty()) value.fail("expected a file, got empty text");
      file.parent = path.parent_path() / value.as_string();
      if (!fs::exists(file.parent)) value.fail(fmt::format("no such file: {}", file.parent.string()));
    } else {
      file.map.set(name, value);
    }
  }
  file.map.set_place(root.origin(), "");
  return file;
}

// The file and its parents, the eldest first.
std::vector<File> load_chain(const fs::path& path) {
  std::vector<File> chain = {load_file(path)};
  std::vector<fs::path> seen = {whole_path(path)};
  while (!chain.back().parent.empty()) {
    const fs::path parent = chain.back().parent;
    if (std::find(seen.begin(), seen.end(), whole_path(parent)) != seen.end()) {
      throw ConfigError(fmt::format("{}: extends: {} extends itself, by way of {} files", chain.back().path.string(),
                                    parent.string(), chain.size()));
    }
    if (chain.size() >= kMaxParents) {
      throw ConfigError(fmt::format("{}: extends: more than {} files deep", chain.back().path.string(), kMaxParents));
    }
    seen.push_back(whole_path(parent));
    chain.push_back(load_file(parent));
  }
  std::reverse(chain.begin(), chain.end());
  return chain;
}

// What a run file says about a part, and where that file looks for names.
struct Choice {
  ConfigNode node;
  std::vector<fs::path> folders;
};

class Composer {
 public:
  Composer(const KeyTable& table, const Sources& sources) : table_(table), sources_(sources) {}

  ConfigNode run() {
    if (!sources_.file.empty()) {
      for (const File& file : load_chain(sources_.file)) take(file);
    }
    ConfigNode effective = ConfigNode::map();
    for (const PartKind& kind : part_kinds()) {
      for (const auto& [name, choice] : choices_) {
        if (name == kind.name) overlay(effective, resolve(kind, choice));
      }
    }
    overlay(effective, own_);
    const ConfigNode sets = table_.parse_sets(sources_.sets), flags = table_.checked(sources_.flags);
    for (const auto& [name, value] : flags.as_map()) {
      if (const ConfigNode* set = sets.find(name)) {
        throw ConfigError(
            fmt::format("{}: {} is also given by {}; give one of them", set->origin(), name, value.origin()));
      }
    }
    overlay(effective, sets);
    overlay(effective, flags);
    return table_.with_defaults(effective);
  }

 private:
  // Values go into `own_`, parts into `choices_`; both replace what a parent file says of the same name.
  void take(const File& file) {
    ConfigNode plain = ConfigNode::map();
    const std::vector<fs::path> folders = folders_for(file.path);
    for (const auto& [name, value] : file.map.as_map()) {
      if (const PartKind* kind = find_kind(name)) {
        std::erase_if(choices_, [&, wanted = name](const auto& row) { return row.first == wanted; });
        if (is_part(*kind, value, folders)) {
          choices_.emplace_back(name, Choice{value, folders});
          own_ = without(own_, name);
          continue;
        }
        if (!table_.find(name)) continue;
      }
      plain.set(name, value);
    }
    overlay(own_, table_.checked(plain));
  }

  static ConfigNode without(const ConfigNode& map, const std::string& name) {
    ConfigNode out = ConfigNode::map();
    for (const auto& [key, value] : map.as_map()) {
      if (key != name) out.set(key, value);
    }
    return out;
  }

  static const PartKind* find_kind(const std::string& name) {
    for (const PartKind& kind : part_kinds()) {
      if (kind.name == name) return &kind;
    }
    return nullptr;
  }

  std::vector<fs::path> folders_for(const fs::path& file) const {
    std::vector<fs::path> folders;
    for (fs::path up = fs::absolute(file).lexically_normal().parent_path(); up.has_relative_path();
         up = up.parent_path()) {
      if (up.filename() == "configs") {
        folders.push_back(up);
        break;
      }
    }
    folders.insert(folders.end(), sources_.folders.begin(), sources_.folders.end());
    return folders;
  }

  static fs::path find_part_file(const PartKind& kind, const std::string& name, const std::vector<fs::path>& folders) {
    if (name.empty() || name.find('/') != std::string::npos) return {};
    for (const fs::path& folder : folders) {
      const fs::path path = folder / kind.folder / (name + ".yaml");
      std::error_code error;
      if (fs::exists(path, error)) return readable(path);
    }
    return {};
  }

  bool is_part(const PartKind& kind, const ConfigNode& value, const std::vector<fs::path>& folders) const {
    const KeySpec* own = table_.find(kind.name);
    if (value.is_map()) return !(own && own->takes_method_map && value.find("method"));
    if (value.is_string() && !find_part_file(kind, value.as_string(), folders).empty()) return true;
    if (own || value.is_null()) return false;
    if (!value.is_string()) value.fail(fmt::format("expected the name of a part or a map, got {}", value.describe()));
    value.fail(unknown_name_message(kind.name, excerpt(value.as_string()), part_names(kind, folders)));
  }

  static std::vector<std::string> part_names(const PartKind& kind, const std::vector<fs::path>& folders) {
    std::vector<std::string> names;
    for (const fs::path& folder : folders) {
      std::error_code error;
      for (const auto& entry : fs::directory_iterator(folder / kind.folder, error)) {
        if (entry.path().extension() == ".yaml") names.push_back(entry.path().stem().string());
      }
    }
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

  ConfigNode resolve(const PartKind& kind, const Choice& choice) const {
    ConfigNode values = ConfigNode::map();
    if (choice.node.is_map()) {
      overlay(values, checked_part(kind, choice.node));
      return values;
    }
    const fs::path path = find_part_file(kind, choice.node.as_string(), choice.folders);
    for (const File& file : load_chain(path)) overlay(values, checked_part(kind, file.map));
    // A part that does not say which model or method it means, means the one of its own name.
    if (table_.find(kind.name) && !values.find(kind.name)) {
      values.set(kind.name, table_.checked_value(*table_.find(kind.name), choice.node));
    }
    return values;
  }

  ConfigNode checked_part(const PartKind& kind, const ConfigNode& map) const {
    for (const auto& [name, value] : map.as_map()) {
      const KeySpec* key = table_.find(name);
      if (!key || std::find(key->parts.begin(), key->parts.end(), kind.name) != key->parts.end()) continue;
      throw ConfigError(
          fmt::format("{}: {}: not a key of a {} part; it belongs in the run file", value.origin(), name, kind.name));
    }
    return table_.checked(map);
  }

  const KeyTable& table_;
  const Sources& sources_;
  ConfigNode own_ = ConfigNode::map();
  std::vector<std::pair<std::string, Choice>> choices_;
};

}  // namespace

const std::vector<PartKind>& part_kinds() {
  static const std::vector<PartKind> kinds = {
      {"model", "models"}, {"attention", "attention"}, {"sampling", "sampling"}};
  return kinds;
}

ConfigNode compose(const KeyTable& table, const Sources& sources) { return Composer(table, sources).run(); }

}  // namespace strobe::config
