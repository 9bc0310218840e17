// What a sprite clip shows, by name: the attributes that a caption may name and the checker reads back.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace strobe::training::sprites {

enum class Size : uint8_t { kSmall, kLarge };
enum class Colour : uint8_t { kRed, kGreen, kBlue, kYellow, kPurple, kOrange, kCyan, kPink };
enum class Shape : uint8_t { kCircle, kRing, kSquare, kCross, kTriangle, kStar };
enum class Motion : uint8_t {
  kLeft,
  kRight,
  kUp,
  kDown,
  kCircling,
  kBouncing,
  kGrowing,
  kShrinking,
  kSpinning,
  kStill
};
enum class Background : uint8_t { kBlack, kGray, kWhite, kGradient, kCheckered };

inline constexpr int kNumSizes = 2, kNumColours = 8, kNumShapes = 6, kNumMotions = 10, kNumBackgrounds = 5;

// The words of captions: "small", "red", "circle", "moving left" (as "a circle moving left"), "black".
const char* name(Size size);
const char* name(Colour colour);
const char* name(Shape shape);
const char* name(Motion motion);
const char* name(Background background);
// "moves left", as in "a circle moves left".
const char* verb(Motion motion);

using Rgb = std::array<float, 3>;  // 0..1

Rgb palette(Colour colour);

struct ObjectAttributes {
  Size size = Size::kSmall;
  Colour colour = Colour::kRed;
  Shape shape = Shape::kCircle;
  Motion motion = Motion::kStill;
  bool operator==(const ObjectAttributes&) const = default;
};

// A circle or ring looks the same at every angle, so that nothing would be seen of its spinning.
bool can_spin(Shape shape);

// One in kHeldOutOneIn of the combinations (colour, shape, motion, background), chosen by hash; size plays no part, so
// that a caption that names these four is unseen whether or not it names the size. Training draws none of them.
inline constexpr uint64_t kHeldOutOneIn = 10;
bool is_held_out(const ObjectAttributes& object, Background background);

}  // namespace strobe::training::sprites
