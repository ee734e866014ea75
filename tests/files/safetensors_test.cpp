// Safetensors: valid files, shards, writing, and every way in which a file can be wrong.
#include "files/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "files/gguf_test_support.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::safetensors_test {
namespace {

using test::ByteWriter;
using test::view;

std::string file_of(std::string_view header, size_t data_bytes) {
  ByteWriter out;
  out.string(header);
  for (size_t i = 0; i < data_bytes; ++i) out.put(static_cast<uint8_t>(i));
  return out.bytes;
}

constexpr const char* kValid =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
    R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]},"s":{"dtype":"I64","shape":[],"data_offsets":[22,30]}})";

ErrorCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  return ErrorCode::internal;
}

class SafetensorsFiles : public testing::Test {
 protected:
  ScratchFolder folder_;
};

TEST(Safetensors, ReadsTensorsInOrderOfTheirData) {
  const std::string bytes = file_of(kValid, 30);
  const auto source = parse_safetensors(view(bytes));
  ASSERT_EQ(source->tensors().size(), 3u);
  EXPECT_EQ(source->tensors()[0].shape, (std::vector<uint64_t>{2, 2}));
  EXPECT_EQ(source->tensors()[1].type, DType::bf16);
  EXPECT_EQ(source->data(source->tensors()[1])[0], std::byte{16});
  EXPECT_TRUE(source->find("s")->shape.empty());
  EXPECT_EQ(source->find("s")->bytes, 8u);
}

TEST(Safetensors, AnEmptyFileOfTensorsIsValid) {
  EXPECT_TRUE(parse_safetensors(view(file_of("{}", 0)))->tensors().empty());
}

TEST_F(SafetensorsFiles, WhatIsWrittenReadsBackAligned) {
  const std::string half(6, 'h'), full(8, 'f');
  const auto bytes_of = [](const std::string& text) { return [&text](AtomicFile& out) { out.write(text); }; };
  uint64_t reported = 0;
  write_safetensors(
      folder_ / "model.safetensors",
      {{{"half", DType::f16, {3}, 6}, bytes_of(half)}, {{"full", DType::f32, {2, 1}, 8}, bytes_of(full)}},
      {{"format", "pt"}}, [&](uint64_t done, uint64_t total) {
        EXPECT_EQ(total, 14u);
        reported = done;
      });
  EXPECT_EQ(reported, 14u);
  const auto source = open_safetensors_folder(folder_.path());
  ASSERT_EQ(source->tensors().size(), 2u);
  EXPECT_EQ(source->tensors()[0].name, "full");  // the wider type first
  const auto data = source->data(*source->find("half"));
  EXPECT_EQ(std::memcmp(data.data(), half.data(), 6), 0);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(source->data(*source->find("full")).data()) % 4, 0u);
}

TEST_F(SafetensorsFiles, QuantizedTensorsCannotBeWritten) {
  std::string message;
  EXPECT_EQ(code_of(
                [&] {
                  write_safetensors(folder_ / "x.safetensors", {{{"q", DType::q8_0, {32}, 34}, {}}});
                },
                &message),
            ErrorCode::unsupported);
  EXPECT_NE(message.find("Q8_0"), std::string::npos);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(SafetensorsFiles, ReadsShardsOfAnIndex) {
  folder_.write("one.safetensors", file_of(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4));
  folder_.write("two.safetensors", file_of(R"({"b":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", 2));
  folder_.write("model.safetensors.index.json",
                R"({"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const auto source = open_safetensors_folder(folder_.path());
  EXPECT_EQ(source->paths().size(), 2u);
  EXPECT_EQ(source->data(*source->find("b")).size(), 2u);
}

TEST_F(SafetensorsFiles, AnIndexThatLiesIsRefused) {
  folder_.write("one.safetensors", file_of(R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4));
  const auto open = [&](const std::string& index, std::string* message = nullptr) {
    folder_.write("model.safetensors.index.json", index);
    return code_of([&] { open_safetensors_folder(folder_.path()); }, message);
  };
  std::string message;
  EXPECT_EQ(open(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})", &message),
            ErrorCode::not_found);
  EXPECT_NE(message.find("two.safetensors"), std::string::npos);
  EXPECT_EQ(open(R"({"weight_map":{"a":"one.safetensors","b":"one.safetensors"}})", &message),
            ErrorCode::mismatch);
  EXPECT_NE(message.find("\"b\""), std::string::npos);
  folder_.write("two.safetensors", file_of(R"({"b":{"dtype":"F16","shape":[1],"data_offsets":[0,2]}})", 2));
  EXPECT_EQ(open(R"({"weight_map":{"b":"two.safetensors","c":"one.safetensors"}})"), ErrorCode::mismatch);
  EXPECT_EQ(open(R"({"weight_map":{"a":"../one.safetensors"}})", &message), ErrorCode::corrupt);
  EXPECT_NE(message.find("same folder"), std::string::npos);
  EXPECT_EQ(open(R"({"weight_map":{"a":7}})"), ErrorCode::corrupt);
  EXPECT_EQ(open(R"({"weight_map":{}})"), ErrorCode::corrupt);
  EXPECT_EQ(open(R"([])"), ErrorCode::corrupt);
  EXPECT_EQ(open("{"), ErrorCode::corrupt);
  fs::remove(folder_ / "model.safetensors.index.json");
  EXPECT_EQ(code_of([&] { open_safetensors_folder(folder_.path()); }, &message), ErrorCode::not_found);
  EXPECT_NE(message.find(folder_.path().string()), std::string::npos);
}

struct BadHeader {
  const char* name;
  ErrorCode code;
  std::vector<const char*> words;
  std::string bytes;

  friend void PrintTo(const BadHeader& header, std::ostream* out) { *out << header.name; }
};

BadHeader bad(const char* name, std::vector<const char*> words, std::string_view header, size_t data_bytes,
              ErrorCode code = ErrorCode::corrupt) {
  return {name, code, std::move(words), file_of(header, data_bytes)};
}

const BadHeader kBadHeaders[] = {
    {"Empty", ErrorCode::corrupt, {"0 bytes"}, ""},
    {"LengthBeyondLimit",
     ErrorCode::corrupt,
     {"header length is 18446744073709551615"},
     ByteWriter().put(~uint64_t{0}).raw("{}").bytes},
    {"LengthBeyondFile",
     ErrorCode::corrupt,
     {"header has 50 bytes", "incomplete"},
     ByteWriter().put(uint64_t{50}).raw("{}").bytes},
    bad("NotAnObject", {"begin with '{'"}, "[]", 0),
    bad("BrokenJson", {"not valid JSON"}, "{\"a\":", 0),
    bad("DeepNesting", {"nested"}, R"({"a":{"dtype":[[[[[[1]]]]]]}})", 0),
    bad("DuplicateName", {"\"a\" twice"},
        R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"I8","shape":[1],"data_offsets":[1,2]}})",
        2),
    bad("EmptyName", {"name must have"}, R"({"":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1),
    bad("NulInName", {"NUL"}, R"({"a\u0000":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1),
    bad("NotDescribed", {"\"a\"", "object"}, R"({"a":3})", 0),
    bad("NoDtype", {"\"a\"", "no field \"dtype\""}, R"({"a":{"shape":[1],"data_offsets":[0,1]}})", 1),
    bad("NoShape", {"\"a\"", "no field \"shape\""}, R"({"a":{"dtype":"I8","data_offsets":[0,1]}})", 1),
    bad("NoOffsets", {"\"a\"", "no field \"data_offsets\""}, R"({"a":{"dtype":"I8","shape":[1]}})", 1),
    bad("UnknownField", {"\"a\"", "\"extra\""},
        R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1],"extra":1}})", 1),
    bad("UnknownDtype", {"\"a\"", "F8_E5M2"}, R"({"a":{"dtype":"F8_E5M2","shape":[1],"data_offsets":[0,1]}})",
        1, ErrorCode::unsupported),
    bad("DtypeNumber", {"\"a\"", "dtype must be"}, R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,1]}})",
        1),
    bad("ZeroDimension", {"\"a\"", "zero"}, R"({"a":{"dtype":"I8","shape":[1,0],"data_offsets":[0,0]}})", 0),
    bad("NegativeDimension", {"\"a\"", "whole numbers"},
        R"({"a":{"dtype":"I8","shape":[-1],"data_offsets":[0,1]}})", 1),
    bad("HugeDimension", {"\"a\"", "whole numbers"},
        R"({"a":{"dtype":"I8","shape":[99999999999999999999],"data_offsets":[0,1]}})", 1),
    bad("ShapeOverflow", {"\"a\"", "overflows"},
        R"({"a":{"dtype":"I8","shape":[8589934592,8589934592],"data_offsets":[0,1]}})", 1),
    bad("BytesOverflow", {"\"a\"", "bytes overflows"},
        R"({"a":{"dtype":"F32","shape":[9223372036854775807],"data_offsets":[0,1]}})", 1),
    bad("ManyDimensions", {"\"a\"", "at most 8"},
        R"({"a":{"dtype":"I8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1),
    bad("OneOffset", {"\"a\"", "data_offsets"}, R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0]}})", 1),
    bad("BackwardOffsets", {"\"a\"", "backwards"}, R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[2,1]}})",
        2),
    bad("SpanOfOtherSize", {"\"a\"", "need 2"}, R"({"a":{"dtype":"F16","shape":[1],"data_offsets":[0,1]}})",
        1),
    bad("PastTheEnd", {"\"a\"", "incomplete download"},
        R"({"a":{"dtype":"I8","shape":[9],"data_offsets":[0,9]}})", 8),
    bad("Overlap", {"\"b\"", "overlaps"},
        R"({"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[4],"data_offsets":[2,6]}})",
        6),
    bad("Gap", {"\"b\"", "no tensor"},
        R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"I8","shape":[1],"data_offsets":[2,3]}})",
        3),
    bad("TrailingBytes", {"1 bytes after the last tensor"},
        R"({"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 2),
    bad("MetadataNumbers", {"__metadata__"}, R"({"__metadata__":{"x":1}})", 0),
};

class BadSafetensors : public testing::TestWithParam<BadHeader> {};

TEST_P(BadSafetensors, IsRefusedWithItsReason) {
  std::string message;
  EXPECT_EQ(code_of([] { parse_safetensors(view(GetParam().bytes)); }, &message), GetParam().code) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos);
  for (const char* word : GetParam().words) EXPECT_NE(message.find(word), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(All, BadSafetensors, testing::ValuesIn(kBadHeaders),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(SafetensorsMutations, RandomDamageNeverCrashes) {
  const std::string valid = file_of(kValid, 30);
  std::mt19937 random(2);
  size_t accepted = 0;
  for (int round = 0; round < 10000; ++round) {
    std::string bytes = valid;
    const size_t edits = 1 + random() % 3;
    for (size_t e = 0; e < edits; ++e) {
      const size_t at = random() % bytes.size();
      bytes[at] = random() % 2 == 0 ? static_cast<char>(random()) : "0123456789[]{},:\""[random() % 17];
    }
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    accepted += code_of([&] {
                  const auto source = parse_safetensors(view(bytes));
                  uint64_t sum = 0;
                  for (const auto& tensor : source->tensors())
                    for (const std::byte b : source->data(tensor)) sum += static_cast<uint64_t>(b);
                  volatile uint64_t sink = sum;
                  (void)sink;
                }) == ErrorCode::internal;
  }
  EXPECT_GT(accepted, 50u);
  EXPECT_LT(accepted, 9500u);
}

}  // namespace
}  // namespace mneme::safetensors_test
