// Torch checkpoints: what torch wrote reads back (tools/make_torch_golden.py), everything that is not a
// tensor is refused by name and never executed, and damage of archive or pickle is found before memory is
// touched.
#include "files/torch_checkpoint.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/half.h"
#include "files/gguf_test_support.h"
#include "files/torch_archive.h"
#include "files/torch_pickle.h"
#include "mneme/error.h"
#include "scratch.h"

namespace mneme::torch_checkpoint_test {
namespace {

using test::ByteWriter;
using test::view;
using testing::ElementsAre;
using testing::HasSubstr;

const fs::path kData = fs::path(MNEME_TEST_DATA) / "torch";

std::string file_bytes(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

Error refused(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::internal, "nothing was thrown"};
}

Error refused(const std::string& archive) {
  return refused([&] { parse_torch_checkpoint(view(archive)); });
}

double value_of(DType type, const std::byte* at) {
  const auto read = [at](auto value) {
    std::memcpy(&value, at, sizeof value);
    return value;
  };
  switch (type) {
    case DType::f32:
      return static_cast<double>(read(float{}));
    case DType::f64:
      return read(double{});
    case DType::f16:
      return static_cast<double>(f16_to_f32(read(uint16_t{})));
    case DType::bf16:
      return static_cast<double>(bf16_to_f32(read(uint16_t{})));
    case DType::i64:
      return static_cast<double>(read(int64_t{}));
    case DType::i32:
      return read(int32_t{});
    case DType::i16:
      return read(int16_t{});
    case DType::i8:
      return read(int8_t{});
    case DType::u8:
      return read(uint8_t{});
    default:
      return -1e300;
  }
}

void expect_as_torch_reads(const std::string& name) {
  const auto source = open_torch_checkpoint(kData / (name + ".bin"));
  const auto golden = nlohmann::json::parse(file_bytes(kData / (name + ".json")));
  const std::map<std::string, DType> types{
      {"float32", DType::f32}, {"float16", DType::f16}, {"bfloat16", DType::bf16},
      {"float64", DType::f64}, {"int64", DType::i64},   {"int32", DType::i32},
      {"int16", DType::i16},   {"int8", DType::i8},     {"uint8", DType::u8}};
  ASSERT_EQ(source->tensors().size(), golden["tensors"].size());
  for (size_t i = 0; i < source->tensors().size(); ++i) {
    const auto& expected = golden["tensors"][i];
    const TensorInfo& tensor = source->tensors()[i];
    EXPECT_EQ(tensor.name, expected["name"].get<std::string>());
    EXPECT_EQ(tensor.shape, expected["shape"].get<std::vector<uint64_t>>()) << tensor.name;
    ASSERT_EQ(tensor.type, types.at(expected["dtype"].get<std::string>())) << tensor.name;
    const auto values = expected["values"].get<std::vector<double>>();
    const Bytes data = source->data(tensor);
    const size_t size = dtype_info(tensor.type).block_bytes;
    ASSERT_EQ(data.size(), values.size() * size) << tensor.name;
    for (size_t v = 0; v < values.size(); ++v)
      EXPECT_EQ(value_of(tensor.type, data.data() + v * size), values[v]) << tensor.name << " " << v;
  }
}

TEST(TorchCheckpoint, ReadsWhatTorchWrote) {
  expect_as_torch_reads("good");
}

TEST(TorchCheckpoint, AViewIsReadInTheOrderOfItsShape) {
  expect_as_torch_reads("strided");
  // The copy is made again after it was let go.
  const auto source = open_torch_checkpoint(kData / "strided.bin");
  const TensorInfo& tensor = source->tensors()[0];
  const Bytes first = source->data(tensor);
  EXPECT_EQ(source->data(tensor).data(), first.data());
  const std::vector<std::byte> copy(first.begin(), first.end());
  source->release(tensor);
  const Bytes again = source->data(tensor);
  EXPECT_TRUE(std::equal(again.begin(), again.end(), copy.begin(), copy.end()));
}

TEST(TorchCheckpoint, TensorsMayShareAStorage) {
  const auto source = open_torch_checkpoint(kData / "good.bin");
  const Bytes whole = source->data(*source->find("whole")), slice = source->data(*source->find("slice"));
  EXPECT_EQ(slice.data(), whole.data() + 5 * sizeof(float));
}

TEST(TorchCheckpoint, APlainDictionaryIsEnough) {
  EXPECT_EQ(open_torch_checkpoint(kData / "plain_dict.bin")->find("plain")->bytes, 16u);
}

struct Refusal {
  const char* file;
  ErrorCode code;
  const char* message;
};

void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.file;
}

class TorchRefusals : public testing::TestWithParam<Refusal> {};

TEST_P(TorchRefusals, AreNamed) {
  const fs::path file = kData / GetParam().file;
  const Error error = refused([&] { open_torch_checkpoint(file); });
  EXPECT_EQ(error.code(), GetParam().code) << error.what();
  EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
  EXPECT_THAT(error.what(), HasSubstr(file.string()));
  EXPECT_FALSE(fs::exists("torch_pickle_was_executed"));
}

INSTANTIATE_TEST_SUITE_P(
    Files, TorchRefusals,
    testing::Values(Refusal{"run.bin", ErrorCode::unsupported, "asks for \"posix.system\""},
                    Refusal{"number.bin", ErrorCode::unsupported, "\"epoch\" is a number, not a tensor"},
                    Refusal{"nested.bin", ErrorCode::unsupported, "\"model\" is a dictionary"},
                    Refusal{"a_list.bin", ErrorCode::unsupported, "it holds a list"},
                    Refusal{"bool.bin", ErrorCode::unsupported, "\"torch.BoolStorage\""},
                    Refusal{"numpy.bin", ErrorCode::unsupported, "numpy"},
                    Refusal{"empty_dimension.bin", ErrorCode::corrupt, "\"none\" has a dimension of zero"},
                    Refusal{"module.bin", ErrorCode::unsupported, "\"torch.nn.modules.linear.Linear\""},
                    Refusal{"set.bin", ErrorCode::unsupported, "\"__builtin__.set\""},
                    Refusal{"protocol4.bin", ErrorCode::unsupported, "protocol 4"},
                    Refusal{"before_1_6.bin", ErrorCode::corrupt, "before 1.6"}),
    [](const auto& item) { return fs::path(item.param.file).stem().string(); });

// Archives by hand
// ----------------------------------------------------------------------------------------------

struct Entry {
  std::string name, data;
  uint16_t flags = 0, method = 0;
};

/// A zip archive of stored entries. With `zip64`, sizes and offsets stand in the 64-bit fields.
std::string archive_of(const std::vector<Entry>& entries, bool zip64 = false) {
  ByteWriter out, directory;
  for (const Entry& entry : entries) {
    const auto size = static_cast<uint32_t>(entry.data.size()), at = static_cast<uint32_t>(out.bytes.size());
    const auto name = static_cast<uint16_t>(entry.name.size());
    const uint32_t crc = crc32_of(view(entry.data));
    out.put(0x04034b50u)
        .put(uint16_t{20})
        .put(entry.flags)
        .put(entry.method)
        .put(0u)
        .put(crc)
        .put(size)
        .put(size);
    out.put(name).put(uint16_t{3}).raw(entry.name).raw("pad").raw(entry.data);
    directory.put(0x02014b50u).put(0x00140014u).put(entry.flags).put(entry.method).put(0u).put(crc);
    directory.put(zip64 ? ~0u : size).put(zip64 ? ~0u : size).put(name).put(uint16_t(zip64 ? 33 : 0));
    directory.put(uint16_t{0})
        .put(uint16_t{0})
        .put(uint16_t{0})
        .put(0u)
        .put(zip64 ? ~0u : at)
        .raw(entry.name);
    if (zip64) {
      directory.put(uint16_t{9}).put(uint16_t{1}).raw("?");  // another field comes first
      directory.put(uint16_t{1}).put(uint16_t{24}).put(uint64_t{size}).put(uint64_t{size}).put(uint64_t{at});
    }
  }
  const uint64_t begin = out.bytes.size(), size = directory.bytes.size(), count = entries.size();
  out.raw(directory.bytes);
  const uint64_t end64 = out.bytes.size();
  if (zip64) {
    out.put(0x06064b50u)
        .put(uint64_t{44})
        .put(0x002d002du)
        .put(0u)
        .put(0u)
        .put(count)
        .put(count)
        .put(size)
        .put(begin);
    out.put(0x07064b50u).put(0u).put(end64).put(1u);
  }
  const auto small = [zip64](uint64_t value) { return zip64 ? ~0u : static_cast<uint32_t>(value); };
  out.put(0x06054b50u)
      .put(0u)
      .put(static_cast<uint16_t>(small(count)))
      .put(static_cast<uint16_t>(small(count)));
  out.put(small(size)).put(small(begin)).put(uint16_t{0});
  return out.bytes;
}

// Pickles by hand
// -----------------------------------------------------------------------------------------------

std::string text(std::string_view value) {
  return ByteWriter().raw("X").put(static_cast<uint32_t>(value.size())).raw(value).bytes;
}

std::string number(int32_t value) {
  return ByteWriter().raw("J").put(value).bytes;
}

struct Parts {
  std::string storage_type = "ctorch\nFloatStorage\n", key = text("0"), values = number(6);
  std::string offset = number(0), shape = number(2) + number(3) + "\x86",
              strides = number(3) + number(1) + "\x86", gradient = "\x89", hooks = "}";
  std::string name = text("a"), before, after;

  std::string tensor() const {
    return "ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + storage_type + key + text("cpu") +
           values + "tQ" + offset + shape + strides + gradient + hooks + "tR";
  }
  std::string pickle() const { return "\x80\x02}" + before + name + tensor() + "s" + after + "."; }
};

Error refused_pickle(const std::string& pickle) {
  return refused([&] { read_torch_pickle(view(pickle), "p"); });
}

TEST(TorchPickle, DescribesTensorsByBytes) {
  Parts parts;
  parts.offset = number(2);
  parts.values = number(8);
  const auto tensors = read_torch_pickle(view(parts.pickle()), "p");
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].info.shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_EQ(tensors[0].info.bytes, 24u);
  EXPECT_EQ(tensors[0].storage, "0");
  EXPECT_EQ(tensors[0].storage_bytes, 32u);
  EXPECT_EQ(tensors[0].offset, 8u);
}

TEST(TorchPickle, TensorsMustLieInTheirStorage) {
  Parts parts;
  parts.values = number(5);
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("\"a\" needs 6 values from 0 on"));
  parts.values = number(6);
  parts.offset = number(1);
  EXPECT_EQ(refused_pickle(parts.pickle()).code(), ErrorCode::corrupt);
  parts.offset = number(-1);
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("offset of a tensor is not a whole number"));
  parts.offset = "\x8a\x08" + ByteWriter().put(INT64_MAX).bytes;
  EXPECT_EQ(refused_pickle(parts.pickle()).code(), ErrorCode::corrupt);
}

TEST(TorchPickle, SizesThatOverflowAreRefused) {
  const std::string huge = "\x8a\x08" + ByteWriter().put(INT64_MAX / 2).bytes;
  Parts parts;
  parts.shape = huge + huge + "\x86";
  parts.strides = huge + number(1) + "\x86";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("overflows 64 bits"));
  parts = {};
  parts.values = "\x8a\x08" + ByteWriter().put(INT64_MAX).bytes;
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("storage of tensor \"a\" overflows"));
  parts.values = "\x8a\x09" + std::string(9, '\1');
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("a number has 9 bytes"));
}

std::vector<uint8_t> bytes_of_view(const Parts& parts, size_t storage) {
  std::string values;
  for (size_t i = 0; i < storage; ++i) values += static_cast<char>(i);
  const std::string archive = archive_of({{"m/data.pkl", parts.pickle()}, {"m/data/0", values}});
  const auto source = parse_torch_checkpoint(view(archive));
  std::vector<uint8_t> out;
  for (const std::byte b : source->data(source->tensors().at(0))) out.push_back(std::to_integer<uint8_t>(b));
  return out;
}

TEST(TorchPickle, StridesOfEveryKindAreFollowed) {
  Parts parts;
  parts.storage_type = "ctorch\nByteStorage\n";
  parts.values = number(30);
  const auto sizes = [](std::initializer_list<int> of) {
    std::string out = "(";
    for (const int n : of) out += number(n);
    return out + "t";
  };
  const auto view_of = [&](int offset, std::initializer_list<int> shape, std::initializer_list<int> strides) {
    parts.offset = number(offset);
    parts.shape = sizes(shape);
    parts.strides = sizes(strides);
    return bytes_of_view(parts, 30);
  };
  EXPECT_THAT(view_of(0, {3, 2}, {1, 3}), ElementsAre(0, 3, 1, 4, 2, 5));      // transposed
  EXPECT_THAT(view_of(4, {2, 3}, {10, 2}), ElementsAre(4, 6, 8, 14, 16, 18));  // columns
  EXPECT_THAT(view_of(29, {1, 1}, {7, 9}), ElementsAre(29));                   // of one value
  EXPECT_THAT(view_of(1, {4}, {9}), ElementsAre(1, 10, 19, 28));               // every ninth
  EXPECT_THAT(view_of(0, {2, 2, 3}, {1, 6, 2}), ElementsAre(0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11));
}

TEST(TorchPickle, ViewsMustLieInTheirStorageAndRepeatNothing) {
  Parts parts;
  parts.values = number(6);
  parts.strides = number(1) + number(2) + "\x86";  // [2, 3]: the last value is at 1 + 2 * 2
  EXPECT_THAT(read_torch_pickle(view(parts.pickle()), "p")[0].strides, ElementsAre(1, 2));
  parts.strides = number(1) + number(3) + "\x86";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("\"a\" needs 8 values from 0 on"));
  parts.strides = number(0) + number(1) + "\x86";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("repeats values (strides [0, 1])"));
  const std::string huge = "\x8a\x08" + ByteWriter().put(INT64_MAX).bytes;
  parts.strides = huge + huge + "\x86";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("overflows 64 bits"));
  parts.strides = huge + number(1) + "\x86";
  EXPECT_EQ(refused_pickle(parts.pickle()).code(), ErrorCode::corrupt);
}

TEST(TorchPickle, NegativeLongNumbersAreNegative) {
  Parts parts;
  parts.values = "\x8a\x01\xff";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("size of a storage is not a whole number"));
  parts.values = "\x8a\x01\x06";
  EXPECT_EQ(read_torch_pickle(view(parts.pickle()), "p").size(), 1u);
}

TEST(TorchPickle, ShapesAndStridesMustAgree) {
  Parts parts;
  parts.strides = number(1) + "\x85";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("2 dimensions and 1 strides"));
  std::string many = "(";
  for (int i = 0; i < 9; ++i) many += number(1);
  parts.shape = parts.strides = many + "t";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("at most 8 numbers"));
  parts.shape = text("2x3");
  EXPECT_EQ(refused_pickle(parts.pickle()).code(), ErrorCode::corrupt);
}

TEST(TorchPickle, NamesMustBeUniqueAndPlain) {
  Parts parts;
  parts.before = text("a") + parts.tensor() + "s";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("two tensors are named \"a\""));
  parts.before.clear();
  for (const std::string& bad : {std::string(), std::string("a\0b", 3), std::string(1025, 'n')}) {
    parts.name = text(bad);
    EXPECT_EQ(refused_pickle(parts.pickle()).code(), ErrorCode::corrupt);
  }
  parts.name = number(1);
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("a key of its dictionary is a number"));
}

TEST(TorchPickle, CallsOfAnythingElseAreRefused) {
  Parts parts;
  parts.before = text("x") + "cbuiltins\neval\n(" + text("1") + "tRs";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("\"builtins.eval\"; only tensors are read"));
  parts.before = text("x") + "ctorch\nFloatStorage\n)Rs";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("calls torch.FloatStorage"));
  parts.before = text("x") + "ctorch._utils\n_rebuild_parameter\n)Rs";
  EXPECT_EQ(refused_pickle(parts.pickle()).code(), ErrorCode::corrupt);
  parts.before = text("x") + "ccollections\nOrderedDict\n(" + number(1) + "tRs";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("OrderedDict is called with arguments"));
  parts.before = text("x") + number(1) + ")Rs";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("a call needs a function"));
  parts.before.clear();
  parts.hooks = "}" + text("hook") + number(1) + "s";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("a tensor has hooks"));
}

// Opcodes that would import, instantiate or call by other ways: INST, OBJ, NEWOBJ, STACK_GLOBAL, EXT1,
// PERSID.
TEST(TorchPickle, OtherOperationsAreRefused) {
  for (const std::string op : {"ios\nsystem\n", "o", "\x81", "\x93", "\x82\x01", "P0\n", "0", "2", "I1\n"}) {
    Parts parts;
    parts.before = op;
    const Error error = refused_pickle(parts.pickle());
    EXPECT_EQ(error.code(), ErrorCode::unsupported) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(fmt::format("0x{:02x}", static_cast<uint8_t>(op[0]))));
  }
}

TEST(TorchPickle, AttributesAreSetOnOrderedDictsOnly) {
  Parts parts;
  parts.after = "}b";
  EXPECT_THAT(refused_pickle(parts.pickle()).what(), HasSubstr("attributes are set on something other"));
}

TEST(TorchPickle, TheStackIsGuarded) {
  for (const char* body :
       {"s", "u", "e", "t", "R", "Q", "b", "q\1", "a", "\x85", "\x87", "(s", "N(R", "h\7", ")Q"}) {
    const Error error = refused_pickle(std::string("\x80\x02") + body + ".");
    EXPECT_EQ(error.code(), ErrorCode::corrupt) << body << ": " << error.what();
  }
  EXPECT_EQ(refused_pickle("\x80\x02}(NN.").code(), ErrorCode::corrupt);  // an open mark
  EXPECT_EQ(refused_pickle("\x80\x02}}.").code(), ErrorCode::corrupt);    // two values
  EXPECT_EQ(refused_pickle("\x80\x02}.}").code(), ErrorCode::corrupt);    // more after the end
  EXPECT_EQ(refused_pickle("\x80\x02}(Nu.").code(), ErrorCode::corrupt);  // a key without a value
  EXPECT_EQ(refused_pickle("\x80\x02(N}u.").code(), ErrorCode::corrupt);  // the target is behind the mark
  EXPECT_THAT(refused_pickle("\x80\x02" + std::string(65, '(') + ".").what(),
              HasSubstr("nest deeper than 64"));
}

// A container may hold itself; nothing walks through containers, so this is only "not a tensor".
TEST(TorchPickle, ValuesThatContainThemselvesDoNoHarm) {
  const std::string loop = "\x80\x02}q\1" + text("me") + "h\1s.";
  EXPECT_THAT(refused_pickle(loop).what(), HasSubstr("\"me\" is a dictionary"));
}

TEST(TorchPickle, TooManyObjectsAreRefused) {
  EXPECT_EQ(refused_pickle("\x80\x02" + std::string(2'000'001, 'N') + ".").code(), ErrorCode::limit);
  EXPECT_EQ(refused_pickle("\x80\x02" + std::string(33 << 20, '(')).code(), ErrorCode::limit);
}

TEST(TorchPickle, EveryCutIsRefused) {
  const std::string whole = Parts().pickle();
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(refused_pickle(whole.substr(0, size)).code(), ErrorCode::internal) << size;
}

std::vector<Entry> valid_entries() {
  return {{"m/data.pkl", Parts().pickle()}, {"m/byteorder", "little"}, {"m/data/0", std::string(24, '\2')}};
}

TEST(TorchArchive, Zip64FieldsAreRead) {
  for (const bool zip64 : {false, true}) {
    const std::string bytes = archive_of(valid_entries(), zip64);
    const auto source = parse_torch_checkpoint(view(bytes));
    ASSERT_EQ(source->tensors().size(), 1u);
    EXPECT_EQ(source->data(source->tensors()[0])[23], std::byte{2});
  }
}

TEST(TorchArchive, OnlyPlainStoredEntriesAreRead) {
  auto entries = valid_entries();
  entries[2].method = 8;
  EXPECT_THAT(refused(archive_of(entries)).what(), HasSubstr("\"m/data/0\" is compressed"));
  entries = valid_entries();
  entries[1].flags = 1;
  EXPECT_THAT(refused(archive_of(entries)).what(), HasSubstr("encrypted"));
}

TEST(TorchArchive, WhatATorchFileHoldsIsChecked) {
  auto entries = valid_entries();
  entries[1].data = "big";
  EXPECT_THAT(refused(archive_of(entries)).what(), HasSubstr("byte order is \"big\""));
  entries = valid_entries();
  entries[2].data.pop_back();
  EXPECT_THAT(refused(archive_of(entries)).what(),
              HasSubstr("expects 24 bytes in storage \"0\", which has 23"));
  entries[2].name = "m/data/1";
  EXPECT_THAT(refused(archive_of(entries)).what(), HasSubstr("storage \"0\", which is not there"));
  entries = valid_entries();
  entries.push_back(entries[2]);
  EXPECT_THAT(refused(archive_of(entries)).what(), HasSubstr("two entries are named \"m/data/0\""));
  entries[3] = {"n/data.pkl", ""};
  EXPECT_THAT(refused(archive_of(entries)).what(), HasSubstr("could be its list of tensors"));
  EXPECT_THAT(refused(archive_of({{"readme", "hello"}})).what(), HasSubstr("it is no torch checkpoint"));
  EXPECT_THAT(refused(archive_of({})).what(), HasSubstr("it is no torch checkpoint"));
}

TEST(TorchArchive, ADamagedListOfTensorsIsFound) {
  std::string bytes = archive_of(valid_entries());
  const size_t at = bytes.find("FloatStorage");
  bytes.replace(at, 12, "FloatStorbge");
  EXPECT_THAT(refused(bytes).what(), HasSubstr("the checksum of its list of tensors is wrong"));
}

TEST(TorchArchive, EntriesMustNotOverlap) {
  std::string bytes = archive_of(valid_entries());
  // the second entry of the directory points at the header of the first, whose name it takes too
  const size_t directory = bytes.find("PK\1\2"), second = bytes.find("PK\1\2", directory + 1);
  std::memset(bytes.data() + second + 42, 0, 4);
  EXPECT_THAT(refused(bytes).what(), HasSubstr("another name in its local header"));
  auto entries = valid_entries();
  entries[0].name = entries[1].name = "m/data.pkl";
  bytes = archive_of(entries);
  const size_t again = bytes.find("PK\1\2", bytes.find("PK\1\2") + 1);
  std::memset(bytes.data() + again + 42, 0, 4);
  EXPECT_THAT(refused(bytes).what(), HasSubstr("overlap"));
}

// Every cut and every changed byte of a whole file: read or refused, never a fault.
TEST(TorchArchive, DamageAnywhereIsSurvived) {
  for (const std::string& whole : {file_bytes(kData / "plain_dict.bin"), archive_of(valid_entries(), true),
                                   archive_of(valid_entries())}) {
    for (size_t size = 0; size < whole.size(); ++size)
      EXPECT_NE(refused(whole.substr(0, size)).code(), ErrorCode::internal) << size;
    for (size_t at = 0; at < whole.size(); ++at)
      for (const char change : {'\x01', '\x80', '\xff'}) {
        std::string bytes = whole;
        bytes[at] = static_cast<char>(bytes[at] ^ change);
        try {
          const auto source = parse_torch_checkpoint(view(bytes));
          for (const TensorInfo& tensor : source->tensors()) EXPECT_FALSE(source->data(tensor).empty());
        } catch (const Error&) {
        }
      }
  }
}

TEST(TorchArchive, ChecksumsAreThoseOfZip) {
  EXPECT_EQ(crc32_of(view("123456789")), 0xcbf43926u);
}

// Folders
// -------------------------------------------------------------------------------------------------------

class TorchFolders : public testing::Test {
 protected:
  ScratchFolder folder_;
  std::string shard(const std::string& name) {
    auto entries = valid_entries();
    Parts parts;
    parts.name = text(name);
    entries[0].data = parts.pickle();
    return archive_of(entries);
  }
};

TEST_F(TorchFolders, ReadOneFile) {
  EXPECT_FALSE(has_torch_checkpoint(folder_.path()));
  EXPECT_EQ(refused([&] { open_torch_folder(folder_.path()); }).code(), ErrorCode::not_found);
  folder_.write("pytorch_model.bin", shard("a"));
  EXPECT_TRUE(has_torch_checkpoint(folder_.path()));
  for (const LoadMode mode : {LoadMode::mmap, LoadMode::read})
    EXPECT_NE(open_torch_folder(folder_.path(), mode)->find("a"), nullptr);
}

TEST_F(TorchFolders, ReadTheShardsOfAnIndex) {
  folder_.write("pytorch_model-00001-of-00002.bin", shard("a"));
  folder_.write("pytorch_model-00002-of-00002.bin", shard("b"));
  const auto index = [&](const std::string& map) {
    folder_.write("pytorch_model.bin.index.json", R"({"metadata": {}, "weight_map": {)" + map + "}}");
  };
  const std::string both =
      R"("a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin")";
  index(both);
  const auto source = open_torch_folder(folder_.path());
  EXPECT_EQ(source->paths().size(), 2u);
  EXPECT_EQ(source->data(*source->find("b")).size(), 24u);
  index(both + R"(, "c": "pytorch_model-00002-of-00002.bin")");
  EXPECT_THAT(refused([&] { open_torch_folder(folder_.path()); }).what(), HasSubstr("places tensor \"c\""));
  folder_.write("pytorch_model-00002-of-00002.bin", shard("a"));
  index(both);
  EXPECT_THAT(refused([&] { open_torch_folder(folder_.path()); }).what(),
              HasSubstr("a second tensor is named \"a\""));
  fs::remove(folder_ / "pytorch_model-00002-of-00002.bin");
  EXPECT_EQ(refused([&] { open_torch_folder(folder_.path()); }).code(), ErrorCode::not_found);
}

}  // namespace
}  // namespace mneme::torch_checkpoint_test
