// Errors of JSON objects: an unknown field is named with the nearest known one, a missing one with the
// unknown field it may be.
#include "core/json_fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mneme::json_fields_test {
namespace {

template <class F>
std::string message_of(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    return error.what();
  }
  return "no error";
}

JsonFields fields_of(const Json& value) {
  return JsonFields(value, "config", ErrorCode::invalid_argument);
}

TEST(JsonFields, AMissingFieldNamesTheUnknownOneItMayBe) {
  const Json value = {{"modle", "x"}, {"steps", 3}};
  EXPECT_EQ(message_of([&] { fields_of(value).string("model"); }),
            "config.model is missing (is it meant by \"modle\"?)");
}

TEST(JsonFields, AMissingFieldDoesNotBlameOneThatIsKnown) {
  const Json value = {{"modes", "x"}, {"steps", 3}};
  JsonFields fields = fields_of(value);
  EXPECT_EQ(fields.string("modes"), "x");
  EXPECT_EQ(message_of([&] { fields.string("model"); }), "config.model is missing");
}

TEST(JsonFields, AShortNameIsNotGuessed) {
  const Json value = {{"id", 1}};
  EXPECT_EQ(message_of([&] { fields_of(value).number("lr", 0, 1); }), "config.lr is missing");
}

TEST(JsonFields, AnUnknownFieldIsNamedWithTheNearest) {
  const Json value = {{"model", "x"}, {"stepps", 3}};
  JsonFields fields = fields_of(value);
  fields.string("model");
  fields.u32("steps", 1, 10, 5);
  EXPECT_THAT(message_of([&] { fields.finish(); }),
              testing::AllOf(testing::HasSubstr("stepps"), testing::HasSubstr("steps")));
}

}  // namespace
}  // namespace mneme::json_fields_test
