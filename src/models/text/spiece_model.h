// SentencePiece model files (`spiece.model`, a protobuf message), unigram models only: the fields that tokenising
// needs.
//
// Errors   ConfigError naming the file for bytes that are no such message, other model types, or missing parts.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace strobe::models::text {

enum class PieceType : int { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct SpiecePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

struct SpieceModel {
  std::vector<SpiecePiece> pieces;
  int32_t unknown_id = 0;
  std::string character_map;  // normaliser's precompiled map, may be empty
};

// `origin` is the file's name for messages.
SpieceModel parse_spiece(std::string_view bytes, const std::string& origin);

// The message, with the ids of <pad>, </s> and the unknown piece where such pieces exist.
std::string serialize_spiece(const SpieceModel& model);

}  // namespace strobe::models::text
