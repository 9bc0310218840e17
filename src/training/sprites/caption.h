// Captions of sprite clips: the grammar, both ways, and its words.
//
// Grammar   object   [a | an] [size] colour shape motion          motion: "moving left"; with `over`: "moves left"
//           caption  object [and object] [on | over a background background]   or   object [and object], background
//                    background
//           scene.h lists the five forms that are written. "an" stands before "orange".
// Reading   parse_caption takes every written form, in any case and with a full stop, and captions that leave out parts
//           (size, colour, motion, background) or say "moves left on". An empty caption names nothing.
// Errors    ConfigError with the word that is unknown (and the nearest one) or out of place.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "training/sprites/scene.h"

namespace strobe::training::sprites {

// Written with the scene's own form, or another.
std::string caption(const Scene& scene);
std::string caption(const Scene& scene, CaptionForm form);

// What a caption says.
struct NamedObject {
  std::optional<Size> size;
  std::optional<Colour> colour;
  std::optional<Shape> shape;
  std::optional<Motion> motion;
  bool operator==(const NamedObject&) const = default;
};
struct NamedAttributes {
  std::vector<NamedObject> objects;
  std::optional<Background> background;
  bool operator==(const NamedAttributes&) const = default;
};

// What caption(scene, form) names.
NamedAttributes named_attributes(const Scene& scene, CaptionForm form);
NamedAttributes parse_caption(std::string_view text);

// Every word of the grammar once; the comma is no word.
const std::vector<std::string>& vocabulary();

// The tokenizer of the bundled model: one piece a word, all else in letters (models/text/sentencepiece_tokenizer.h).
void write_tokenizer(const std::filesystem::path& folder);

}  // namespace strobe::training::sprites
