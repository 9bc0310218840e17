// Names of outputs: patterns, folders, defaults, and the files that lie beside a clip.
//
// Contract  "{index:04} {slug} {seed} {method} {density} {model} {ext}" are replaced; ":0N" pads numbers. {frame:05}
//           stays for the frame writer. A name that ends in '/' is a folder of PNG frames. A name without extension, or
//           of a folder that is there, is a folder for files named "{index:04}_{slug}_{seed}". Several clips under one
//           name that ends in '/' get a folder of frames each.
// Errors    ConfigError with the nearest name for an unknown placeholder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace strobe::pipelines {

struct NameFields {
  int64_t index = 0;  // of the clip in the whole list
  std::string slug;
  uint64_t seed = 0;
  std::string method = "dense";
  std::optional<double> density = 1.0;  // asked; "auto" in the name where the content decides
  std::string model;
  std::string ext = "mp4";
};

std::string expand_name(const std::string& pattern, const NameFields& fields);

// --output for one clip of `clips`; an empty `asked` gives the default name.
std::filesystem::path output_name(const std::string& asked, const NameFields& fields, int64_t clips);
// --save-latents: a file, or a folder for one file a clip.
std::filesystem::path latents_name(const std::string& asked, const NameFields& fields, int64_t clips);
// --save-frames: a folder of frames, one a clip.
std::filesystem::path frames_name(const std::string& asked, const NameFields& fields, int64_t clips);

// "clips/a.mp4" for itself, "clips/a" for "clips/a/" and "clips/a/{frame:05}.png": what names beside a clip start with.
std::filesystem::path clip_stem(const std::filesystem::path& output);

// "a-cat-walks-on-the-grass", at most 40 characters.
std::string slug(const std::string& prompt);

}  // namespace strobe::pipelines
