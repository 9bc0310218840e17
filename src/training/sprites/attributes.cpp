#include "training/sprites/attributes.h"

#include "core/counter_random.h"

namespace strobe::training::sprites {
namespace {

constexpr std::array<const char*, kNumSizes> kSizeNames = {"small", "large"};
constexpr std::array<const char*, kNumColours> kColourNames = {"red",    "green",  "blue", "yellow",
                                                               "purple", "orange", "cyan", "pink"};
constexpr std::array<const char*, kNumShapes> kShapeNames = {"circle", "ring", "square", "cross", "triangle", "star"};
constexpr std::array<const char*, kNumMotions> kMotionNames = {
    "moving left", "moving right", "moving up", "moving down", "going in a circle",
    "bouncing",    "growing",      "shrinking", "spinning",    "staying still"};
constexpr std::array<const char*, kNumMotions> kVerbs = {
    "moves left", "moves right", "moves up", "moves down", "goes in a circle",
    "bounces",    "grows",       "shrinks",  "spins",      "stays still"};
constexpr std::array<const char*, kNumBackgrounds> kBackgroundNames = {"black", "gray", "white", "gradient",
                                                                       "checkered"};
constexpr std::array<Rgb, kNumColours> kPalette = {{{0.90F, 0.12F, 0.12F},
                                                    {0.12F, 0.72F, 0.20F},
                                                    {0.12F, 0.28F, 0.95F},
                                                    {0.95F, 0.85F, 0.10F},
                                                    {0.60F, 0.15F, 0.85F},
                                                    {1.00F, 0.50F, 0.05F},
                                                    {0.10F, 0.85F, 0.90F},
                                                    {1.00F, 0.50F, 0.78F}}};
// Any constant; another one holds out other combinations.
constexpr uint64_t kHeldOutSeed = 0x5350524954455331U;

template <class Names, class Enum>
auto named(const Names& names, Enum value) {
  return names[static_cast<std::size_t>(value)];
}

}  // namespace

const char* name(Size size) { return named(kSizeNames, size); }
const char* name(Colour colour) { return named(kColourNames, colour); }
const char* name(Shape shape) { return named(kShapeNames, shape); }
const char* name(Motion motion) { return named(kMotionNames, motion); }
const char* name(Background background) { return named(kBackgroundNames, background); }
const char* verb(Motion motion) { return named(kVerbs, motion); }

Rgb palette(Colour colour) { return named(kPalette, colour); }

bool can_spin(Shape shape) { return shape != Shape::kCircle && shape != Shape::kRing; }

bool is_held_out(const ObjectAttributes& object, Background background) {
  auto code = static_cast<uint64_t>(object.colour);
  code = code * kNumShapes + static_cast<uint64_t>(object.shape);
  code = code * kNumMotions + static_cast<uint64_t>(object.motion);
  code = code * kNumBackgrounds + static_cast<uint64_t>(background);
  return mix_bits(kHeldOutSeed ^ code) % kHeldOutOneIn == 0;
}

}  // namespace strobe::training::sprites
