// Reading and writing valid GGUF files. What is refused is in gguf_bad_input_test.cpp.
#include "files/gguf.h"

#include <gtest/gtest.h>

#include "files/gguf_test_support.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::gguf_test {
namespace {

using test::ByteWriter;
using test::GgufImage;
using test::view;

class GgufFiles : public testing::Test {
 protected:
  ScratchFolder folder_;
};

std::string pair_u16(std::string_view key, uint16_t value) {
  return ByteWriter().string(key).put(2u).put(value).bytes;
}

GgufImage split_part(uint16_t number, uint16_t count, const std::string& tensor) {
  GgufImage part;
  part.pairs = {pair_u16("split.no", number), pair_u16("split.count", count),
                ByteWriter().string("split.tensors.count").put(5u).put(int32_t{count}).bytes};
  if (number == 0) part.pairs.push_back(ByteWriter().string("general.name").put(8u).string("whole").bytes);
  part.tensors = {{tensor, {8}, 0, 0}};
  return part;
}

TEST(Gguf, ReadsTensorsWithShapesAndData) {
  const std::string bytes = GgufImage().bytes();
  const auto file = GgufFile::parse(view(bytes));
  EXPECT_EQ(file->version(), 3u);
  ASSERT_EQ(file->tensors().size(), 2u);
  const auto* a = file->find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->shape, (std::vector<uint64_t>{2, 4}));  // outermost first
  EXPECT_EQ(a->bytes, 32u);
  EXPECT_EQ(file->data(*a)[5], std::byte{5});
  const auto* b = file->find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->type, DType::q8_0);
  EXPECT_EQ(b->bytes, 34u);
  EXPECT_EQ(file->data(*b)[0], std::byte{32});
  EXPECT_EQ(file->find("c"), nullptr);
  EXPECT_EQ(file->file_bytes(), bytes.size());
}

TEST(Gguf, ReadsEveryMetadataType) {
  GgufImage image;
  image.pairs = {
      ByteWriter().string("u8").put(0u).put(uint8_t{200}).bytes,
      ByteWriter().string("i8").put(1u).put(int8_t{-7}).bytes,
      ByteWriter().string("u16").put(2u).put(uint16_t{60000}).bytes,
      ByteWriter().string("i16").put(3u).put(int16_t{-300}).bytes,
      ByteWriter().string("u32").put(4u).put(4000000000u).bytes,
      ByteWriter().string("i32").put(5u).put(-70000).bytes,
      ByteWriter().string("f32").put(6u).put(0.5f).bytes,
      ByteWriter().string("bool").put(7u).put(uint8_t{1}).bytes,
      ByteWriter().string("u64").put(10u).put(uint64_t{1} << 40).bytes,
      ByteWriter().string("i64").put(11u).put(-(int64_t{1} << 40)).bytes,
      ByteWriter().string("f64").put(12u).put(0.1).bytes,
      ByteWriter().string("words").put(9u).put(8u).put(uint64_t{2}).string("x").string("").bytes,
      ByteWriter().string("ints").put(9u).put(5u).put(uint64_t{2}).put(-1).put(2).bytes,
      ByteWriter().string("floats").put(9u).put(6u).put(uint64_t{1}).put(0.25f).bytes,
      ByteWriter().string("flags").put(9u).put(7u).put(uint64_t{2}).put(uint8_t{1}).put(uint8_t{0}).bytes,
  };
  const std::string bytes = image.bytes();
  const auto file = GgufFile::parse(view(bytes));
  const auto& m = file->metadata();
  EXPECT_EQ(m.get_uint("u8"), 200u);
  EXPECT_EQ(m.get_float("i8"), -7.0);
  EXPECT_EQ(m.get_uint("u16"), 60000u);
  EXPECT_EQ(m.get_uint("u32"), 4000000000u);
  EXPECT_EQ(m.get_uint("u64"), uint64_t{1} << 40);
  EXPECT_EQ(m.get_float("f32"), 0.5);
  EXPECT_EQ(m.get_float("f64"), 0.1);
  EXPECT_TRUE(m.get_bool("bool", false));
  EXPECT_EQ(m.get_strings("words"), (std::vector<std::string>{"x", ""}));
  EXPECT_EQ(m.get_ints("ints"), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(m.get_ints("flags"), (std::vector<int64_t>{1, 0}));
  EXPECT_EQ(m.get_floats("floats"), (std::vector<double>{0.25}));
  EXPECT_EQ(m.get_floats("ints"), (std::vector<double>{-1, 2}));
  EXPECT_THROW(m.get_uint("i32"), Error);  // negative
  EXPECT_THROW(m.get_string("u8"), Error);
  EXPECT_THROW(m.get_uint("missing"), Error);
  EXPECT_EQ(m.get_uint("missing", 9), 9u);
  EXPECT_EQ(m.find_strings("missing"), nullptr);
}

TEST(Gguf, ReadsVersion2AndOtherAlignments) {
  GgufImage image;
  image.version = 2;
  image.alignment = 64;
  image.pairs.push_back(ByteWriter().string("general.alignment").put(4u).put(64u).bytes);
  image.tensors[1].offset = 64;
  image.data_bytes = 128;
  const std::string bytes = image.bytes();
  const auto file = GgufFile::parse(view(bytes));
  EXPECT_EQ(file->version(), 2u);
  EXPECT_EQ(file->data(file->tensors()[1])[0], std::byte{64});
}

TEST_F(GgufFiles, OpensASplitModelFromAnyPart) {
  for (uint16_t p = 0; p < 3; ++p)
    folder_.write("m-0000" + std::to_string(p + 1) + "-of-00003.gguf",
                  split_part(p, 3, std::string(1, char('a' + p))).bytes());
  for (const char* part : {"m-00001-of-00003.gguf", "m-00003-of-00003.gguf"}) {
    const auto file = GgufFile::open(folder_ / part);
    EXPECT_EQ(file->tensors().size(), 3u);
    EXPECT_EQ(file->paths().size(), 3u);
    EXPECT_EQ(file->metadata().get_string("general.name"), "whole");
    EXPECT_EQ(file->data(*file->find("c")).size(), 32u);
  }
}

TEST_F(GgufFiles, SplitsThatDoNotBelongTogetherAreRefused) {
  const auto code = [&](const fs::path& path) {
    try {
      GgufFile::open(path);
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::internal;
  };
  const auto first = folder_.write("m-00001-of-00002.gguf", split_part(0, 2, "a").bytes());
  EXPECT_EQ(code(first), ErrorCode::not_found);  // part 2 is missing
  folder_.write("m-00002-of-00002.gguf", split_part(0, 2, "b").bytes());
  EXPECT_EQ(code(first), ErrorCode::mismatch);  // part 2 says that it is part 1
  folder_.write("m-00002-of-00002.gguf", split_part(1, 3, "b").bytes());
  EXPECT_EQ(code(first), ErrorCode::mismatch);  // part 2 is of a split in three
  folder_.write("m-00002-of-00002.gguf", split_part(1, 2, "a").bytes());
  EXPECT_EQ(code(first), ErrorCode::corrupt);  // the same tensor twice
  GgufImage more = split_part(1, 2, "b");
  more.tensors.push_back({"c", {8}, 0, 32});
  folder_.write("m-00002-of-00002.gguf", more.bytes());
  EXPECT_EQ(code(first), ErrorCode::mismatch);  // split.tensors.count
  EXPECT_EQ(code(folder_.write("renamed.gguf", split_part(0, 2, "a").bytes())), ErrorCode::mismatch);
}

TEST_F(GgufFiles, BothLoadModesSeeTheSameBytes) {
  const auto path = folder_.write("m.gguf", GgufImage().bytes());
  const auto mapped = GgufFile::open(path, LoadMode::mmap), read = GgufFile::open(path, LoadMode::read);
  for (const auto& tensor : mapped->tensors()) {
    const auto a = mapped->data(tensor), b = read->data(tensor);
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end()));
  }
}

TEST_F(GgufFiles, AFileThatShrinksWhileMappedIsReported) {
  const auto path = folder_.write("m.gguf", GgufImage().bytes());
  const auto file = GgufFile::open(path);
  fs::resize_file(path, 100);
  try {
    file->data(file->tensors()[0]);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::io);
    EXPECT_NE(std::string(error.what()).find("shrank"), std::string::npos);
  }
}

TEST_F(GgufFiles, WhatIsWrittenReadsBack) {
  GgufMetadata metadata;
  metadata.set("name", std::string("x"));
  metadata.set("count", uint64_t{7});
  metadata.set("big", uint64_t{1} << 50);
  metadata.set("eps", 1e-5);
  metadata.set("negative", int64_t{-3});
  metadata.set("flag", true);
  metadata.set("tokens", std::vector<std::string>{"a", "bc", ""});
  metadata.set("types", std::vector<int64_t>{1, 3});
  metadata.set("scores", std::vector<double>{0.5, -1});
  metadata.set("ids", std::vector<uint64_t>{1, 2});
  metadata.set("flags", std::vector<bool>{true, false});
  metadata.set("general.alignment", uint64_t{64});  // of the file it came from: not copied
  const std::string one(24, 'p'), two(34, 'q');
  const auto bytes_of = [](const std::string& text) { return [&text](AtomicFile& out) { out.write(text); }; };
  write_gguf(
      folder_ / "out.gguf", metadata,
      {{{"one", DType::f32, {2, 3}, 24}, bytes_of(one)}, {{"two", DType::q8_0, {32}, 34}, bytes_of(two)}});
  const auto file = GgufFile::open(folder_ / "out.gguf");
  const auto& m = file->metadata();
  EXPECT_EQ(m.get_string("name"), "x");
  EXPECT_EQ(m.get_uint("count"), 7u);
  EXPECT_EQ(m.get_uint("big"), uint64_t{1} << 50);
  EXPECT_EQ(m.get_float("eps"), double{1e-5f});
  EXPECT_EQ(std::get<int64_t>(*m.find("negative")), -3);
  EXPECT_TRUE(m.get_bool("flag", false));
  EXPECT_EQ(m.get_strings("tokens"), (std::vector<std::string>{"a", "bc", ""}));
  EXPECT_EQ(m.get_ints("types"), (std::vector<int64_t>{1, 3}));
  EXPECT_EQ(m.get_floats("scores"), (std::vector<double>{0.5, -1}));
  EXPECT_EQ(m.get_ints("ids"), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(m.get_ints("flags"), (std::vector<int64_t>{1, 0}));
  EXPECT_FALSE(m.has("general.alignment"));
  EXPECT_EQ(file->find("one")->shape, (std::vector<uint64_t>{2, 3}));
  const auto data = file->data(*file->find("two"));
  EXPECT_EQ(std::memcmp(data.data(), two.data(), two.size()), 0);
}

TEST_F(GgufFiles, AWriterThatFailsLeavesNoFile) {
  const auto lie = [](AtomicFile& out) { out.write(std::string(10, 'x')); };
  EXPECT_THROW(write_gguf(folder_ / "out.gguf", {}, {{{"one", DType::f32, {8}, 32}, lie}}), Error);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

}  // namespace
}  // namespace mneme::gguf_test
