// Expected values were printed by NumPy 2.4.6: SeedSequence(s).generate_state(4, uint64),
// PCG64(s).random_raw, Generator(PCG64(s)).random and .integers; the multipliers are those of published
// Engram models.
#include "core/random.h"

#include <gtest/gtest.h>

#include <vector>

namespace mneme::random_test {
namespace {

TEST(Random, SeedSequenceEqualsNumpy) {
  using Words = std::array<uint64_t, 4>;
  EXPECT_EQ(seed_sequence(0),
            (Words{0xdb2cd7e7b0f478be, 0xabf4641a2c71ba49, 0x20c6ed6d9d7b8d41, 0x2c4099de223c39d4}));
  EXPECT_EQ(seed_sequence(42),
            (Words{0x9f1e2e6dcd540ab7, 0xd57873dc79fb94b6, 0x7d282a1b64d420b7, 0x336579714692d5ff}));
  EXPECT_EQ(seed_sequence(uint64_t{1} << 32),
            (Words{0x50ff846cec53f444, 0x7a4918dbe8278562, 0x3bff9f6c362e2b19, 0xbdb177539a0654e3}));
  EXPECT_EQ(seed_sequence(~uint64_t{0}),
            (Words{0xaebca151928cad0d, 0x119c30448638dc7a, 0x1bbb155659e642a7, 0xa76b11e3e8c4a8f6}));
}

TEST(Random, RawStreamEqualsNumpy) {
  const std::vector<std::pair<uint64_t, std::array<uint64_t, 4>>> cases{
      {0, {0xa30febcfd9c2825f, 0x4510bdf882d9d721, 0x0a7d3da94ecde8b8, 0x043b27b61342f01d}},
      {1, {0x8306bdf37922e4ff, 0xf35196bbc152a866, 0x24e7a4f608ec18cd, 0xf2dab0aed2ac6fd2}},
      {10007, {0xd2c3f84026661e33, 0x0d4fb6969eb57435, 0x62e6e1c58c3bd72b, 0xcb7dd1a94ca96343}},
      {~uint64_t{0}, {0xae163a7a8c47568f, 0xd86659f5f3382359, 0x01e52b195bc2d24a, 0xe5026aaf19a22db1}}};
  for (const auto& [seed, expected] : cases) {
    Pcg64 random(seed);
    for (const uint64_t value : expected) EXPECT_EQ(random.next(), value) << "seed " << seed;
  }
}

TEST(Random, UniformEqualsNumpy) {
  Pcg64 random(42);
  for (const double value : {0x1.8c43f79a2db24p-1, 0x1.c16959869e47ep-2, 0x1.b79a2584ddb42p-1})
    EXPECT_EQ(random.uniform(), value);
}

TEST(Random, BoundedDrawsEqualNumpyWithRejections) {
  Pcg64 thirds(7);
  for (const uint64_t value :
       {6206502512207226871u, 5365828278596935044u, 1557877273993399992u, 2076408988992585337u,
        6042831315724521139u, 5680871422486561426u, 5513750910437575043u, 3236953619344299372u})
    EXPECT_EQ(thirds.below(uint64_t{3} << 61), value);
  // Just above a half of 2^64 almost every second draw is rejected.
  Pcg64 halves(7);
  for (const uint64_t value :
       {7154437704795913393u, 2768545318656780450u, 8057108420966028186u, 7351667880583433391u,
        4315938159125732496u, 2568023004994447682u, 4653636302916549519u, 9121547371692866743u})
    EXPECT_EQ(halves.below((uint64_t{1} << 63) + 1), value);
}

TEST(Random, EngramMultipliers) {
  const auto multipliers = [](uint64_t compressed_vocab, uint64_t layer, size_t count) {
    const uint64_t bound = ((uint64_t{1} << 63) - 1) / compressed_vocab / 2;
    Pcg64 random(10007 * layer);
    std::vector<uint64_t> out(count);
    for (auto& value : out) value = 2 * random.below(bound) + 1;
    return out;
  };
  using V = std::vector<uint64_t>;
  EXPECT_EQ(multipliers(99092, 1, 4), (V{76632096046245, 4839876093313, 35959672319349, 73987337458391}));
  EXPECT_EQ(multipliers(99092, 14, 4), (V{67716810739261, 51510806800915, 30921347202721, 82619226485591}));
  EXPECT_EQ(multipliers(64, 0, 4),
            (V{91795853365445891, 38880362994447277, 5904907108195281, 2381883302643169}));
}

TEST(Random, TrivialBoundsDrawNothing) {
  Pcg64 random(3), untouched(3);
  EXPECT_EQ(random.below(0), 0u);
  EXPECT_EQ(random.below(1), 0u);
  EXPECT_EQ(random.next(), untouched.next());
}

TEST(Random, SmallBoundsAreUniform) {
  Pcg64 random(5);
  std::array<int, 7> counts{};
  constexpr int kDraws = 70000;
  for (int i = 0; i < kDraws; ++i) ++counts.at(random.below(7));
  double chi2 = 0;
  for (const int count : counts) chi2 += (count - 10000.0) * (count - 10000.0) / 10000.0;
  EXPECT_LT(chi2, 22.5);  // 6 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace mneme::random_test
