#include "training/sprites/caption.h"

#include <algorithm>
#include <cctype>

#include "core/error.h"
#include "core/nearest.h"
#include "models/text/sentencepiece_tokenizer.h"

namespace strobe::training::sprites {
namespace {

bool names_size(CaptionForm form) { return form == CaptionForm::kFull || form == CaptionForm::kTerse; }
bool names_background(CaptionForm form) { return form != CaptionForm::kObjectOnly; }

std::string object_phrase(const ObjectAttributes& object, CaptionForm form) {
  std::string phrase = names_size(form) ? std::string(name(object.size)) + " " : "";
  phrase += std::string(name(object.colour)) + " " + name(object.shape) + " ";
  phrase += form == CaptionForm::kVerb ? verb(object.motion) : name(object.motion);
  if (form == CaptionForm::kTerse) return phrase;
  const bool has_vowel = std::string_view("aeiou").find(phrase[0]) != std::string_view::npos;
  return (has_vowel ? "an " : "a ") + phrase;
}

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  };
  for (const char c : text) {
    if (c == ',') {
      end_word();
      words.emplace_back(",");
    } else if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      end_word();
    } else {
      word += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  end_word();
  if (!words.empty() && words.back().ends_with('.')) {
    words.back().pop_back();
    if (words.back().empty()) words.pop_back();
  }
  return words;
}

// A recursive descent over the words.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text), words_(split_words(text)) { check_words(); }

  NamedAttributes parse() {
    NamedAttributes named;
    if (words_.empty()) return named;
    do {
      named.objects.push_back(object());
    } while (accept("and"));
    named.background = background();
    if (at_ != words_.size()) fail();
    return named;
  }

 private:
  void check_words() const {
    for (const std::string& word : words_) {
      const auto& known = vocabulary();
      if (word == "," || std::find(known.begin(), known.end(), word) != known.end()) continue;
      throw ConfigError(fmt::format("caption \"{}\": {}", text_, unknown_name_message("word", word, known)));
    }
  }

  [[noreturn]] void fail() const {
    throw ConfigError(at_ < words_.size()
                          ? fmt::format("caption \"{}\": word {}, '{}', is out of place", text_, at_ + 1, words_[at_])
                          : fmt::format("caption \"{}\": it breaks off", text_));
  }

  bool accept(std::string_view phrase) {
    size_t next = at_;
    for (const std::string& word : split_words(phrase)) {
      if (next >= words_.size() || words_[next] != word) return false;
      ++next;
    }
    at_ = next;
    return true;
  }

  // The value whose words come next, said by one of `sayings`.
  template <class Enum, class... Sayings>
  std::optional<Enum> accept_one(int count, Sayings... sayings) {
    for (int i = 0; i < count; ++i) {
      const auto value = static_cast<Enum>(i);
      if ((accept(sayings(value)) || ...)) return value;
    }
    return std::nullopt;
  }

  NamedObject object() {
    if (!accept("an")) accept("a");
    NamedObject named;
    named.size = accept_one<Size>(kNumSizes, [](Size value) { return name(value); });
    named.colour = accept_one<Colour>(kNumColours, [](Colour value) { return name(value); });
    named.shape = accept_one<Shape>(kNumShapes, [](Shape value) { return name(value); });
    if (!named.shape) fail();
    named.motion = accept_one<Motion>(
        kNumMotions, [](Motion value) { return name(value); }, [](Motion value) { return verb(value); });
    return named;
  }

  std::optional<Background> background() {
    if (at_ == words_.size()) return std::nullopt;
    if (accept("on") || accept("over")) {
      if (!accept("a")) fail();
    } else if (!accept(",")) {
      fail();
    }
    const auto found = accept_one<Background>(kNumBackgrounds, [](Background value) { return name(value); });
    if (!found || !accept("background")) fail();
    return found;
  }

  std::string_view text_;
  std::vector<std::string> words_;
  size_t at_ = 0;
};

template <class Enum>
void add_words(int count, const char* (*say)(Enum), std::vector<std::string>& words) {
  for (int i = 0; i < count; ++i) {
    for (const std::string& word : split_words(say(static_cast<Enum>(i)))) {
      if (std::find(words.begin(), words.end(), word) == words.end()) words.push_back(word);
    }
  }
}

}  // namespace

std::string caption(const Scene& scene) { return caption(scene, scene.form); }

std::string caption(const Scene& scene, CaptionForm form) {
  std::string text;
  for (const SceneObject& object : scene.objects) {
    text += (text.empty() ? "" : " and ") + object_phrase(object.attributes, form);
  }
  if (!names_background(form)) return text;
  text += form == CaptionForm::kTerse ? ", " : form == CaptionForm::kVerb ? " over a " : " on a ";
  return text + name(scene.background) + " background";
}

NamedAttributes named_attributes(const Scene& scene, CaptionForm form) {
  NamedAttributes named;
  for (const SceneObject& object : scene.objects) {
    const ObjectAttributes& a = object.attributes;
    named.objects.push_back({.size = names_size(form) ? std::optional(a.size) : std::nullopt,
                             .colour = a.colour,
                             .shape = a.shape,
                             .motion = a.motion});
  }
  if (names_background(form)) named.background = scene.background;
  return named;
}

NamedAttributes parse_caption(std::string_view text) { return Parser(text).parse(); }

const std::vector<std::string>& vocabulary() {
  static const std::vector<std::string> words = [] {
    std::vector<std::string> all = {"a", "an", "and", "on", "over", "background"};
    add_words<Size>(kNumSizes, name, all);
    add_words<Colour>(kNumColours, name, all);
    add_words<Shape>(kNumShapes, name, all);
    add_words<Motion>(kNumMotions, name, all);
    add_words<Motion>(kNumMotions, verb, all);
    add_words<Background>(kNumBackgrounds, name, all);
    return all;
  }();
  return words;
}

void write_tokenizer(const std::filesystem::path& folder) { models::write_word_tokenizer(folder, vocabulary()); }

}  // namespace strobe::training::sprites
