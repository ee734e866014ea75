#include "memory/engram_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "mneme/error.h"
#include "simd/rows.h"

namespace mneme::engram_config_test {
namespace {

using testing::HasSubstr;

constexpr const char* kTable =
    R"({"compressed_vocab":99092,"pad_id":2,"max_ngram":3,"heads":8,"base_rows":[646400,646400],"layer_ids":[1,15]})";

// What the reader says about kTable with these fields put in place of its own (null removes one).
std::string refusal(const char* changes) {
  Json json = Json::parse(kTable);
  json.merge_patch(Json::parse(changes));
  try {
    engram_table_from_json(json.dump(), "table");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

std::string module_refusal(const char* text) {
  const Json json = Json::parse(text);
  try {
    read_engram_module(JsonFields(json, "memory", ErrorCode::invalid_argument));
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(EngramTableJson, DefaultsAreThoseOfTheStruct) {
  const EngramTableConfig config = engram_table_from_json(kTable, "table");
  EngramTableConfig expected;
  expected.compressed_vocab = 99092;
  expected.pad_id = 2;
  expected.base_rows = {646400, 646400};
  expected.layer_ids = {1, 15};
  EXPECT_EQ(config, expected);
  EXPECT_EQ(config.embedding_dim(), 16u * 64);
}

TEST(EngramTableJson, EveryFieldSurvivesARoundTrip) {
  EngramTableConfig config;
  config.file = "facts.engram";
  config.hash = EngramTableConfig::Hash::splitmix64;
  config.seed = (uint64_t{1} << 61) + 3;  // beyond what a double can say
  config.compressed_vocab = 248320;
  config.raw_ids = true;
  config.pad_id = 7;
  config.max_ngram = 4;
  config.heads = 5;
  config.head_dim = 160;
  config.base_rows = {20000000, 30000000, (uint64_t{1} << 40)};
  config.layer_ids = {9, 2};
  config.rows_multiple = 128;
  config.boundary = EngramTableConfig::Boundary::reset;
  config.boundary_id = 1;
  config.format = RowFormat::fp8_e4m3_e8m0;
  const std::string text = engram_table_json(config).dump();
  EXPECT_EQ(engram_table_from_json(text, "table"), config);
  EXPECT_EQ(engram_table_json(engram_table_from_json(text, "table")).dump(), text);
}

TEST(EngramTableJson, SaysWhatIsWrong) {
  EXPECT_THAT(refusal(R"({"heds":8})"), HasSubstr("did you mean \"heads\""));
  EXPECT_THAT(refusal(R"({"compressed_vocab":null})"), HasSubstr("compressed_vocab is missing"));
  EXPECT_THAT(refusal(R"({"pad_id":99092})"), HasSubstr("pad_id is 99092"));
  EXPECT_THAT(refusal(R"({"pad_id":-1})"), HasSubstr("pad_id is -1"));
  EXPECT_THAT(refusal(R"({"max_ngram":1})"), HasSubstr("max_ngram is 1"));
  EXPECT_THAT(refusal(R"({"max_ngram":4})"), HasSubstr("max_ngram 4 needs 3"));
  EXPECT_THAT(refusal(R"({"heads":0})"), HasSubstr("heads is 0"));
  EXPECT_THAT(refusal(R"({"base_rows":[646400,-3]})"), HasSubstr("base_rows[1] is -3"));
  EXPECT_THAT(refusal(R"({"base_rows":[646400,"x"]})"), HasSubstr("base_rows[1] is \"x\""));
  EXPECT_THAT(refusal(R"({"base_rows":[646400,1.5]})"), HasSubstr("base_rows[1] is 1.5"));
  EXPECT_THAT(refusal(R"({"layer_ids":[]})"), HasSubstr("layer_ids"));
  EXPECT_THAT(refusal(R"({"layer_ids":[3,3]})"), HasSubstr("lists 3 twice"));
  EXPECT_THAT(refusal(R"({"hash":"md5"})"), HasSubstr("pcg64, splitmix64"));
  EXPECT_THAT(refusal(R"({"format":"int4"})"), HasSubstr("f32, bf16, int8, fp8_e4m3_e8m0"));
  EXPECT_THAT(refusal(R"({"format":"fp8_e4m3_e8m0","head_dim":80})"), HasSubstr("multiple of 32"));
  EXPECT_THAT(refusal(R"({"boundary":"eos"})"), HasSubstr("boundary_id is -1"));
  EXPECT_THAT(refusal(R"({"boundary_id":5})"), HasSubstr("boundary is \"none\""));
  EXPECT_THAT(refusal(R"({"seed":"-1"})"), HasSubstr("seed"));
}

TEST(EngramTableJson, SizesThatWouldOverflowAreRefused) {
  EXPECT_THAT(refusal(R"({"head_dim":65536,"heads":256})"), HasSubstr("values a token"));
  Json many = Json::array();
  for (int i = 0; i < 4096; ++i) many.push_back(i);
  EXPECT_THAT(refusal(Json{{"layer_ids", many}, {"heads", 64}}.dump().c_str()), HasSubstr("primes"));
  EXPECT_THAT(refusal(Json{{"layer_ids", many}, {"base_rows", {1ull << 40, 1ull << 40}}, {"head_dim", 1024}}
                          .dump()
                          .c_str()),
              HasSubstr("a table may have at most"));
}

TEST(EngramTableJson, MalformedTextIsCorrupt) {
  EXPECT_THROW(engram_table_from_json("{\"heads\":8,", "table"), Error);
  EXPECT_THROW(engram_table_from_json("[]", "table"), Error);
  EXPECT_THROW(engram_table_from_json(R"({"heads":8,"heads":8})", "table"), Error);
}

TEST(EngramModuleJson, EveryFieldSurvivesARoundTrip) {
  EngramModuleConfig module;
  module.table = "facts";
  module.layer_id = 14;
  module.signed_sqrt = false;
  module.sign0 = EngramModuleConfig::SignOfZero::zero;
  module.bias = true;
  module.eps = 1e-4;
  module.norm_offset = 1;
  module.conv = EngramConvConfig{5, 2, 1e-3};
  const Json json = Json::parse(engram_module_json(module).dump());
  EXPECT_EQ(read_engram_module(JsonFields(json, "memory", ErrorCode::invalid_argument)), module);
  module.conv.reset();
  const Json without = Json::parse(engram_module_json(module).dump());
  EXPECT_EQ(read_engram_module(JsonFields(without, "memory", ErrorCode::invalid_argument)), module);
}

TEST(EngramModuleJson, SaysWhatIsWrong) {
  EXPECT_THAT(module_refusal(R"({"layer_id":1})"), HasSubstr("memory.table is missing"));
  EXPECT_THAT(module_refusal(R"({"table":"","layer_id":1})"), HasSubstr("memory.table"));
  EXPECT_THAT(module_refusal(R"({"table":"f","layer_id":1,"sign0":"minus"})"), HasSubstr("zero, copysign"));
  EXPECT_THAT(module_refusal(R"({"table":"f","layer_id":1,"eps":0})"), HasSubstr("memory.eps"));
  EXPECT_THAT(module_refusal(R"({"table":"f","layer_id":1,"conv":{"kernel":0}})"),
              HasSubstr("memory.conv.kernel"));
  EXPECT_THAT(module_refusal(R"({"table":"f","layer_id":1,"conv":{"kernel":64,"dilation":4096}})"),
              HasSubstr("looks back"));
  EXPECT_THAT(module_refusal(R"({"table":"f","layer_id":1,"gate":true})"), HasSubstr("memory.gate"));
}

TEST(EngramRowBytes, OneRecordARow) {
  EXPECT_EQ(row_bytes(RowFormat::fp8_e4m3_e8m0, 256), 264u);
  EXPECT_EQ(row_bytes(RowFormat::int8, 256), 260u);
  EXPECT_EQ(row_bytes(RowFormat::bf16, 64), 128u);
  EXPECT_EQ(row_bytes(RowFormat::f32, 64), 256u);
}

}  // namespace
}  // namespace mneme::engram_config_test
