// Frequencies against those of transformers' rotary embeddings (tools/make_rope_golden.py), which compute in
// f32 where this computes in f64: they agree to a few units in the last place of an f32.
#include "model/rope_frequencies.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/file.h"
#include "core/json.h"
#include "model/import_hf.h"

namespace mneme::rope_frequencies_test {
namespace {

void expect_golden(const RopeConfig& rope, uint32_t head_dim, const Json& golden, const std::string& what) {
  const std::vector<float> got = rope_inverse_frequencies(rope, head_dim);
  const auto want = golden["inverse_frequencies"].get<std::vector<double>>();
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], 1e-6 * want[i]) << what << " pair " << i;
  EXPECT_NEAR(rope_attention_factor(rope), golden["attention_factor"].get<double>(), 1e-6) << what;
}

TEST(RopeFrequencies, EqualThoseOfTransformers) {
  const Json golden = parse_json(read_text_file(MNEME_TEST_DATA "/rope_golden.json"), "rope_golden.json");
  int sliding = 0;
  ASSERT_EQ(golden["cases"].size(), 15u);
  for (const Json& test : golden["cases"]) {
    const std::string text = test["config"].dump();
    const ModelConfig config = config_from_hf(text);
    const uint32_t head_dim = config.layers[0].mixer.head_dim;
    expect_golden(config.rope, head_dim, test["full"], text);
    if (!test.contains("sliding")) continue;
    ASSERT_EQ(config.layers[0].mixer.type, MixerType::window);
    expect_golden(config.layers[0].mixer.rope.value(), head_dim, test["sliding"], "sliding: " + text);
    ++sliding;
  }
  EXPECT_EQ(sliding, 3);
}

TEST(RopeFrequencies, PartOfAHeadTurnsAsAWholeHeadOfThatSize) {
  RopeConfig part;
  part.dims = 32;
  EXPECT_EQ(rope_inverse_frequencies(part, 128), rope_inverse_frequencies(RopeConfig{}, 32));
}

TEST(RopeFrequencies, StayFiniteAtTheEdgesOfWhatIsValid) {
  for (const auto type : {RopeScaling::Type::linear, RopeScaling::Type::llama3, RopeScaling::Type::yarn})
    for (const double base : {1.0000001, 1e15})
      for (const double context : {1.0, 1073741824.0})
        for (const double factor : {1.0, 1e6}) {
          RopeConfig rope;
          rope.base = base;
          rope.scaling.type = type;
          rope.scaling.factor = factor;
          rope.scaling.original_context = context;
          for (const uint32_t dims : {2u, 4096u})
            for (const float f : rope_inverse_frequencies(rope, dims))
              ASSERT_TRUE(std::isfinite(f) && f >= 0);
        }
}

}  // namespace
}  // namespace mneme::rope_frequencies_test
