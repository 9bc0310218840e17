#include "models/text/spiece_model.h"

#include <fmt/format.h>

#include <bit>
#include <cmath>

#include "core/error.h"
#include "models/text/unicode.h"

namespace strobe::models::text {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kModelPieces = 1;
constexpr uint32_t kModelTrainer = 2;
constexpr uint32_t kModelNormalizer = 3;
constexpr uint32_t kPieceText = 1;
constexpr uint32_t kPieceScore = 2;
constexpr uint32_t kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3;
constexpr uint32_t kTrainerVocabSize = 4;
constexpr uint32_t kTrainerUnkId = 40;
constexpr uint32_t kTrainerBosId = 41;
constexpr uint32_t kTrainerEosId = 42;
constexpr uint32_t kTrainerPadId = 43;
constexpr uint32_t kNormalizerName = 1;
constexpr uint32_t kNormalizerMap = 2;
constexpr uint32_t kNormalizerDummyPrefix = 3;
constexpr uint32_t kNormalizerRemoveSpaces = 4;
constexpr uint32_t kNormalizerEscapeSpaces = 5;
constexpr uint64_t kUnigramType = 1;

enum class Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

// One field of a message.
struct Field {
  uint32_t number = 0;
  Wire wire = Wire::kVarint;
  uint64_t value = 0;      // varint or fixed
  std::string_view bytes;  // of a length-delimited field
};

class Reader {
 public:
  Reader(std::string_view bytes, const std::string& origin) : bytes_(bytes), origin_(origin) {}

  bool next(Field& field) {
    if (bytes_.empty()) return false;
    const uint64_t tag = varint();
    field = {};
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = static_cast<Wire>(tag & 7);
    if (field.number == 0 || tag >> 32 != 0) fail();
    switch (field.wire) {
      case Wire::kVarint:
        field.value = varint();
        return true;
      case Wire::kFixed64:
        field.value = fixed(8);
        return true;
      case Wire::kFixed32:
        field.value = fixed(4);
        return true;
      case Wire::kBytes: {
        const uint64_t size = varint();
        if (size > bytes_.size()) fail();
        field.bytes = bytes_.substr(0, size);
        bytes_.remove_prefix(size);
        return true;
      }
      default:
        fail();
    }
  }

  [[noreturn]] void fail() const { throw ConfigError(fmt::format("{}: is no SentencePiece model", origin_)); }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes_.empty()) fail();
      const auto byte = static_cast<uint8_t>(bytes_.front());
      bytes_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  uint64_t fixed(size_t size) {
    if (bytes_.size() < size) fail();
    uint64_t value = 0;
    for (size_t i = 0; i < size; ++i) value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes_[i])) << (8 * i);
    bytes_.remove_prefix(size);
    return value;
  }

  std::string_view bytes_;
  const std::string& origin_;
};

SpiecePiece parse_piece(std::string_view bytes, const std::string& origin) {
  Reader reader(bytes, origin);
  SpiecePiece piece;
  for (Field field; reader.next(field);) {
    if (field.number == kPieceText && field.wire == Wire::kBytes) piece.text = field.bytes;
    if (field.number == kPieceScore && field.wire == Wire::kFixed32)
      piece.score = std::bit_cast<float>(static_cast<uint32_t>(field.value));
    if (field.number == kPieceType && field.wire == Wire::kVarint) {
      if (field.value < 1 || field.value > 6) reader.fail();
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  std::u32string codes;
  if (!decode_utf8_strict(piece.text, codes) || !std::isfinite(piece.score)) reader.fail();
  return piece;
}

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>((value & 0x7F) | 0x80));
  out.push_back(static_cast<char>(value));
}

void put_tag(std::string& out, uint32_t number, Wire wire) {
  put_varint(out, (number << 3) | static_cast<uint32_t>(wire));
}

void put_integer(std::string& out, uint32_t number, int64_t value) {
  put_tag(out, number, Wire::kVarint);
  put_varint(out, static_cast<uint64_t>(value));
}

void put_bytes(std::string& out, uint32_t number, std::string_view bytes) {
  put_tag(out, number, Wire::kBytes);
  put_varint(out, bytes.size());
  out += bytes;
}

int64_t find_piece(const SpieceModel& model, std::string_view text) {
  for (size_t i = 0; i < model.pieces.size(); ++i)
    if (model.pieces[i].text == text) return static_cast<int64_t>(i);
  return -1;
}

}  // namespace

SpieceModel parse_spiece(std::string_view bytes, const std::string& origin) {
  Reader reader(bytes, origin);
  SpieceModel model;
  uint64_t type = kUnigramType;
  for (Field field; reader.next(field);) {
    if (field.wire != Wire::kBytes) continue;
    if (field.number == kModelPieces) model.pieces.push_back(parse_piece(field.bytes, origin));
    Reader inner(field.bytes, origin);
    Field part;
    if (field.number == kModelTrainer) {
      while (inner.next(part)) {
        if (part.number == kTrainerModelType) type = part.value;
        if (part.number == kTrainerUnkId) model.unknown_id = static_cast<int32_t>(part.value);
      }
    }
    if (field.number == kModelNormalizer) {
      while (inner.next(part))
        if (part.number == kNormalizerMap && part.wire == Wire::kBytes) model.character_map = part.bytes;
    }
  }
  if (type != kUnigramType) throw ConfigError(fmt::format("{}: model_type: only unigram models are supported", origin));
  if (model.unknown_id < 0 || static_cast<size_t>(model.unknown_id) >= model.pieces.size())
    throw ConfigError(
        fmt::format("{}: unk_id: expected one of {} pieces, got {}", origin, model.pieces.size(), model.unknown_id));
  return model;
}

std::string serialize_spiece(const SpieceModel& model) {
  std::string out;
  for (const SpiecePiece& piece : model.pieces) {
    std::string one;
    put_bytes(one, kPieceText, piece.text);
    put_tag(one, kPieceScore, Wire::kFixed32);
    const auto bits = std::bit_cast<uint32_t>(piece.score);
    for (int i = 0; i < 4; ++i) one.push_back(static_cast<char>((bits >> (8 * i)) & 0xFF));
    if (piece.type != PieceType::kNormal) put_integer(one, kPieceType, static_cast<int64_t>(piece.type));
    put_bytes(out, kModelPieces, one);
  }
  std::string trainer;
  put_integer(trainer, kTrainerModelType, kUnigramType);
  put_integer(trainer, kTrainerVocabSize, static_cast<int64_t>(model.pieces.size()));
  put_integer(trainer, kTrainerUnkId, model.unknown_id);
  put_integer(trainer, kTrainerBosId, -1);
  put_integer(trainer, kTrainerEosId, find_piece(model, "</s>"));
  put_integer(trainer, kTrainerPadId, find_piece(model, "<pad>"));
  put_bytes(out, kModelTrainer, trainer);
  std::string normalizer;
  put_bytes(normalizer, kNormalizerName, model.character_map.empty() ? "identity" : "user_defined");
  if (!model.character_map.empty()) put_bytes(normalizer, kNormalizerMap, model.character_map);
  put_integer(normalizer, kNormalizerDummyPrefix, 1);
  put_integer(normalizer, kNormalizerRemoveSpaces, 1);
  put_integer(normalizer, kNormalizerEscapeSpaces, 1);
  put_bytes(out, kModelNormalizer, normalizer);
  return out;
}

}  // namespace strobe::models::text
