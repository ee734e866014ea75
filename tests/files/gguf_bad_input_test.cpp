// Every way in which a GGUF file can be wrong: one valid image, one thing changed, one exact error.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "files/gguf.h"
#include "files/gguf_test_support.h"
#include "mneme/error.h"

namespace mneme::gguf_bad_input_test {
namespace {

using test::ByteWriter;
using test::GgufImage;
using test::view;

constexpr uint64_t kHuge = ~uint64_t{0};

struct BadFile {
  const char* name;
  ErrorCode code;
  std::vector<const char*> words;  // all of them stand in the message
  std::function<std::string()> make;

  friend void PrintTo(const BadFile& file, std::ostream* out) { *out << file.name; }
};

std::string with(const std::function<void(GgufImage&)>& change) {
  GgufImage image;
  change(image);
  return image.bytes();
}

std::string with_pair(const ByteWriter& pair) {
  return with([&](GgufImage& g) { g.pairs.push_back(pair.bytes); });
}

ByteWriter array(std::string_view key, uint32_t type, uint64_t count) {
  return ByteWriter().string(key).put(9u).put(type).put(count);
}

ByteWriter alignment(uint32_t value) {
  return ByteWriter().string("general.alignment").put(4u).put(value);
}

const BadFile kBadFiles[] = {
    {"Empty", ErrorCode::corrupt, {"not a GGUF file"}, [] { return std::string(); }},
    {"Magic",
     ErrorCode::corrupt,
     {"not a GGUF file"},
     [] { return with([](auto& g) { g.magic = "GGML"; }); }},
    {"Version1",
     ErrorCode::unsupported,
     {"version 1", "2 and 3"},
     [] { return with([](auto& g) { g.version = 1; }); }},
    {"Version4", ErrorCode::unsupported, {"version 4"}, [] { return with([](auto& g) { g.version = 4; }); }},
    {"BigEndian",
     ErrorCode::unsupported,
     {"big-endian", "byte 4"},
     [] { return with([](auto& g) { g.version = 0x03000000; }); }},
    {"TruncatedHeader",
     ErrorCode::corrupt,
     {"tensor count", "byte 8"},
     [] { return GgufImage().bytes().substr(0, 12); }},
    {"TruncatedPair",
     ErrorCode::corrupt,
     {"general.architecture", "file ends"},
     [] { return with([](auto& g) { g.tensors.clear(); }).substr(0, 58); }},
    {"TruncatedData",
     ErrorCode::corrupt,
     {"\"b\"", "incomplete download"},
     [] { return with([](auto& g) { g.data_bytes = 60; }); }},
    {"TensorCount",
     ErrorCode::corrupt,
     {"tensor count", "byte 8"},
     [] { return with([](auto& g) { g.tensor_count = int64_t{1} << 62; }); }},
    {"TensorCountBeyondFile",
     ErrorCode::corrupt,
     {},
     [] { return with([](auto& g) { g.tensor_count = 4; }); }},
    {"PairCount",
     ErrorCode::corrupt,
     {"metadata count", "byte 16"},
     [] { return with([](auto& g) { g.pair_count = int64_t{1} << 40; }); }},
    {"EmptyKey",
     ErrorCode::corrupt,
     {"metadata key", "empty"},
     [] { return with_pair(ByteWriter().string("").put(4u).put(1u)); }},
    {"NulInKey",
     ErrorCode::corrupt,
     {"NUL", "a\\x00b"},
     [] { return with_pair(ByteWriter().string(std::string_view("a\0b", 3)).put(4u).put(1u)); }},
    {"LongKey",
     ErrorCode::corrupt,
     {"metadata key", "65535"},
     [] { return with_pair(ByteWriter().string(std::string(70000, 'k')).put(4u).put(1u)); }},
    {"KeyLength",
     ErrorCode::corrupt,
     {"metadata key", "string of 18446744073709551615 bytes"},
     [] { return with_pair(ByteWriter().put(kHuge).raw("x").put(4u).put(1u)); }},
    {"DuplicateKey",
     ErrorCode::corrupt,
     {"general.architecture", "twice"},
     [] { return with([](auto& g) { g.pairs.push_back(g.pairs[0]); }); }},
    {"ValueType",
     ErrorCode::corrupt,
     {"\"k\"", "type 13"},
     [] { return with_pair(ByteWriter().string("k").put(13u).put(1u)); }},
    {"ArrayType",
     ErrorCode::corrupt,
     {"\"k\"", "type 99"},
     [] { return with_pair(array("k", 99, 1).put(1u)); }},
    {"NestedArray",
     ErrorCode::unsupported,
     {"\"k\"", "array of arrays"},
     [] { return with_pair(array("k", 9, 1).put(4u).put(uint64_t{1}).put(1u)); }},
    {"ArrayCount", ErrorCode::corrupt, {"\"k\"", "elements"}, [] { return with_pair(array("k", 8, kHuge)); }},
    {"ArrayCountTimesSize",
     ErrorCode::corrupt,
     {"\"k\"", "elements"},
     [] { return with_pair(array("k", 10, uint64_t{1} << 61).put(uint64_t{0})); }},
    {"StringInArray",
     ErrorCode::corrupt,
     {"\"k\"", "string of"},
     [] { return with_pair(array("k", 8, 1).put(uint64_t{1} << 50)); }},
    {"Bool",
     ErrorCode::corrupt,
     {"\"k\"", "bool of value 7"},
     [] { return with_pair(ByteWriter().string("k").put(7u).put(uint8_t{7})); }},
    {"BoolInArray",
     ErrorCode::corrupt,
     {"\"k\"", "bool"},
     [] { return with_pair(array("k", 7, 1).put(uint8_t{2})); }},
    {"AlignmentZero",
     ErrorCode::corrupt,
     {"general.alignment is 0", "power of two"},
     [] { return with_pair(alignment(0)); }},
    {"AlignmentOdd",
     ErrorCode::corrupt,
     {"general.alignment is 48"},
     [] { return with_pair(alignment(48)); }},
    {"AlignmentHuge",
     ErrorCode::corrupt,
     {"general.alignment is 2147483648"},
     [] { return with_pair(alignment(1u << 31)); }},
    {"AlignmentText",
     ErrorCode::corrupt,
     {"general.alignment", "unsigned integer"},
     [] { return with_pair(ByteWriter().string("general.alignment").put(8u).string("32")); }},
    {"EmptyTensorName",
     ErrorCode::corrupt,
     {"tensor name", "empty"},
     [] { return with([](auto& g) { g.tensors[0].name = ""; }); }},
    {"NulInTensorName",
     ErrorCode::corrupt,
     {"tensor name", "NUL"},
     [] { return with([](auto& g) { g.tensors[0].name = std::string("a\0", 2); }); }},
    {"LongTensorName",
     ErrorCode::corrupt,
     {"tensor name", "1024"},
     [] { return with([](auto& g) { g.tensors[0].name = std::string(2000, 'n'); }); }},
    {"DuplicateTensor",
     ErrorCode::corrupt,
     {"named \"a\"", "unique"},
     [] { return with([](auto& g) { g.tensors[1].name = "a"; }); }},
    {"Rank5",
     ErrorCode::corrupt,
     {"\"a\"", "5 dimensions"},
     [] { return with([](auto& g) {
            g.tensors[0].dims = {1, 1, 1, 1, 1};
          }); }},
    {"ZeroDimension",
     ErrorCode::corrupt,
     {"\"a\"", "dimension 1 is zero"},
     [] { return with([](auto& g) {
            g.tensors[0].dims = {4, 0};
          }); }},
    {"DimensionsOverflow",
     ErrorCode::corrupt,
     {"\"a\"", "overflows"},
     [] { return with([](auto& g) {
            g.tensors[0].dims = {uint64_t{1} << 33, uint64_t{1} << 33};
          }); }},
    {"BytesOverflow",
     ErrorCode::corrupt,
     {"\"a\"", "size in bytes overflows"},
     [] { return with([](auto& g) { g.tensors[0].dims = {uint64_t{1} << 62}; }); }},
    {"PartialBlocks",
     ErrorCode::corrupt,
     {"\"b\"", "33 values", "Q8_0"},
     [] { return with([](auto& g) { g.tensors[1].dims = {33}; }); }},
    {"TypeIQ2",
     ErrorCode::unsupported,
     {"\"a\"", "IQ2_XXS (16)"},
     [] { return with([](auto& g) { g.tensors[0].type = 16; }); }},
    {"TypeQ8K",
     ErrorCode::unsupported,
     {"\"a\"", "Q8_K (15)"},
     [] { return with([](auto& g) { g.tensors[0].type = 15; }); }},
    {"TypeUnknown",
     ErrorCode::unsupported,
     {"\"a\"", "unknown (4242)"},
     [] { return with([](auto& g) { g.tensors[0].type = 4242; }); }},
    {"OffsetUnaligned",
     ErrorCode::corrupt,
     {"\"b\"", "33", "alignment 32"},
     [] { return with([](auto& g) { g.tensors[1].offset = 33; }); }},
    {"OffsetBeyondFile",
     ErrorCode::corrupt,
     {"\"b\"", "file ends"},
     [] { return with([](auto& g) { g.tensors[1].offset = uint64_t{1} << 40; }); }},
    {"OffsetOverflow",
     ErrorCode::corrupt,
     {"\"b\"", "overflows"},
     [] { return with([](auto& g) { g.tensors[1].offset = kHuge - 31; }); }},
    {"Overlap",
     ErrorCode::corrupt,
     {"\"a\" and \"b\"", "overlap"},
     [] { return with([](auto& g) {
            g.tensors[0].dims = {4, 4};
          }); }},
};

class BadGguf : public testing::TestWithParam<BadFile> {};

TEST_P(BadGguf, IsRefusedWithItsReason) {
  const std::string bytes = GetParam().make();
  try {
    GgufFile::parse(view(bytes));
    FAIL() << "the file was accepted";
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(error.code(), GetParam().code) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
    EXPECT_NE(message.find("GGUF"), std::string::npos) << message;  // the name of the buffer
    for (const char* word : GetParam().words) EXPECT_NE(message.find(word), std::string::npos) << message;
  }
}

INSTANTIATE_TEST_SUITE_P(All, BadGguf, testing::ValuesIn(kBadFiles),
                         [](const auto& test) { return std::string(test.param.name); });

TEST(BadGgufPaths, AreNamed) {
  for (const fs::path& path : {fs::path(MNEME_TEST_DATA) / "no-such-file.gguf", fs::path(MNEME_TEST_DATA)}) {
    try {
      GgufFile::open(path);
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos);
    }
  }
}

// Cut anywhere and flipped anywhere, a file is read or refused with an Error, and whatever is accepted keeps
// every tensor inside the file (the sanitizer presets watch the reads).
uint64_t read_everything(const std::string& bytes) {
  uint64_t sum = 0;
  try {
    const auto file = GgufFile::parse(view(bytes));
    for (const auto& tensor : file->tensors())
      for (const std::byte b : file->data(tensor)) sum += static_cast<uint64_t>(b);
  } catch (const Error&) {
    return 0;
  }
  return sum;
}

TEST(GgufMutations, EveryPrefixIsRefused) {
  const std::string bytes = GgufImage().bytes();
  const size_t data_end = bytes.size() - 96 + 32 + 34;
  for (size_t n = 0; n < data_end; ++n) EXPECT_EQ(read_everything(bytes.substr(0, n)), 0u) << n;
  EXPECT_GT(read_everything(bytes), 0u);
}

TEST(GgufMutations, RandomDamageNeverCrashes) {
  GgufImage image;
  image.pairs.push_back(array("words", 8, 2).string("x").string("yz").bytes);
  image.pairs.push_back(array("numbers", 5, 3).put(1).put(2).put(3).bytes);
  const std::string valid = image.bytes();
  std::mt19937 random(1);
  size_t accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = valid;
    const size_t edits = 1 + random() % 4;
    for (size_t e = 0; e < edits; ++e) {
      const size_t at = random() % (bytes.size() - 96);
      bytes[at] = random() % 2 == 0 ? static_cast<char>(random()) : static_cast<char>(1 << random() % 8);
    }
    accepted += read_everything(bytes) > 0;
  }
  EXPECT_GT(accepted, 100u);  // the mutations also reach files that are still valid
  EXPECT_LT(accepted, 19000u);
}

}  // namespace
}  // namespace mneme::gguf_bad_input_test
