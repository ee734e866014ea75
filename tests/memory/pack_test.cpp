#include "memory/pack.h"

#include <gmock/gmock.h>
#include <sys/file.h>

#include <algorithm>
#include <fstream>

#include "core/fail.h"
#include "memory/pack_header.h"
#include "memory/store/placements.h"
#include "pack_support.h"
#include "simd/rows.h"

namespace mneme::pack_test {
namespace {

using namespace testing_support;
using ::testing::HasSubstr;

std::string contents_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void overwrite(const fs::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

class PackTest : public FolderTest {
 protected:
  fs::path written(const EngramTableConfig& table = small_table()) {
    fs::path path = folder / "t.engram";
    write_pack(path, small_pack(table));
    return path;
  }
};

TEST_F(PackTest, EveryFormatComesBackByteForByte) {
  for (const RowFormat format : {RowFormat::f32, RowFormat::bf16, RowFormat::int8, RowFormat::fp8_e4m3_e8m0})
    for (const uint32_t dim : {1u, 33u, 64u, 256u, 416u, 1536u}) {
      if (format == RowFormat::fp8_e4m3_e8m0 && dim % 32 != 0) continue;
      const EngramTableConfig table = small_table(format, dim);
      const auto pack = Pack::open(written(table));
      EXPECT_EQ(pack->description().table, table);
      EXPECT_EQ(pack->row_bytes(), row_bytes(format, dim));
      EXPECT_EQ(pack->row_count(), EngramHash(table).rows());
      EXPECT_EQ(pack->fingerprint().size(), 64u);
      EXPECT_NO_THROW(pack->verify());
      std::vector<uint64_t> ids;
      for (uint64_t i = 0; i < pack->row_count(); ++i) ids.push_back(pack->row_count() - 1 - i);
      for (const Placement placement : {Placement::ram, Placement::mmap}) {
        MemoryOptions options;
        options.placement = placement;
        const auto rows = MemoryTable::open_pack(pack->path(), options);
        EXPECT_EQ(read_rows(*rows, ids), expected_rows(ids, rows->row_bytes()));
      }
    }
}

TEST_F(PackTest, RecordsDoNotStraddlePagesWhereTheSizeAllows) {
  EXPECT_EQ(pack_rows_per_page(264), 15u);  // 3960 of 4096 bytes
  EXPECT_EQ(pack_rows_per_page(4096), 1u);
  EXPECT_EQ(pack_rows_per_page(1), 4096u);
  EXPECT_EQ(pack_rows_per_page(2560), 0u);  // one a page would waste 37 %
  EXPECT_EQ(pack_rows_per_page(4097), 0u);
  const auto pack = Pack::open(written(small_table(RowFormat::fp8_e4m3_e8m0, 256)));
  const RowMap map(pack->rows());
  for (uint64_t row = 0; row < pack->row_count(); ++row) {
    const uint64_t at = map.segments()[0].parts[0].at(row);
    EXPECT_EQ(at / 4096, (at + 263) / 4096);
  }
}

TEST_F(PackTest, ModulesAndTensorsComeBack) {
  PackToWrite pack = small_pack(small_table());
  pack.description.model_hash = "abc";
  EngramModuleConfig module;
  module.table = "t";
  module.layer_id = 3;
  module.conv = EngramConvConfig{};
  pack.description.modules = {module};
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  const std::vector<float> other(100, 7);
  pack.tensors = {{{"layers.3.kv_proj", DType::f32, {2, 3}, 24}, std::as_bytes(std::span(values))},
                  {{"layers.3.norm", DType::f32, {100}, 400}, std::as_bytes(std::span(other))}};
  const fs::path path = folder / "m.engram";
  write_pack(path, pack);
  const auto back = Pack::open(path);
  EXPECT_EQ(back->description().model_hash, "abc");
  ASSERT_NE(back->find_module(3), nullptr);
  EXPECT_EQ(*back->find_module(3), module);
  EXPECT_EQ(back->find_module(1), nullptr);
  ASSERT_EQ(back->tensors().size(), 2u);
  const TensorInfo* const info = back->find("layers.3.kv_proj");
  ASSERT_NE(info, nullptr);
  EXPECT_EQ(info->shape, (std::vector<uint64_t>{2, 3}));
  EXPECT_TRUE(std::ranges::equal(back->data(*info), std::as_bytes(std::span(values))));
  EXPECT_EQ(back->data(back->tensors()[1]).size(), 400u);
  EXPECT_EQ(back->find("absent"), nullptr);
  // A damaged tensor is found by verify.
  std::string bytes = contents_of(path);
  const size_t at = bytes.find(std::string(reinterpret_cast<const char*>(values.data()), 24));
  ASSERT_NE(at, std::string::npos);
  bytes[at] ^= 1;
  overwrite(path, bytes);
  std::string message;
  EXPECT_EQ(code_of([&] { Pack::open(path)->verify(); }, &message), ErrorCode::corrupt);
  EXPECT_THAT(message, HasSubstr("layers.3.kv_proj"));
}

TEST_F(PackTest, AnyChangedByteBeforeTheTensorsIsRefused) {
  const fs::path path = written();
  const std::string good = contents_of(path);
  const auto pack = Pack::open(path);
  const uint64_t end = pack->rows().segments[0].parts[0].offset;
  for (uint64_t at = 0; at < end; ++at) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    ErrorCode code = ErrorCode::internal;
    try {
      Pack::parse(std::as_bytes(std::span(bad)), "bad");
      // Only bytes between sections have no meaning.
      EXPECT_EQ(good[at], '\0') << at;
      continue;
    } catch (const Error& error) {
      code = error.code();
    }
    EXPECT_EQ(code, at >= 8 && at < 12 ? ErrorCode::unsupported : ErrorCode::corrupt) << at;
  }
}

TEST_F(PackTest, TruncatedFilesSayHowMuchIsThere) {
  const fs::path path = written();
  const std::string good = contents_of(path);
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{191}, size_t{192}, good.size() / 2, good.size() - 1}) {
    overwrite(path, good.substr(0, size));
    std::string message;
    EXPECT_EQ(code_of([&] { Pack::open(path); }, &message), ErrorCode::corrupt) << size;
    if (size >= 192) {
      EXPECT_THAT(message, HasSubstr(std::to_string(size) + " of " + std::to_string(good.size())));
    }
  }
  overwrite(path, good + "x");
  EXPECT_EQ(code_of([&] { Pack::open(path); }), ErrorCode::corrupt);
  EXPECT_EQ(code_of([&] { Pack::open(folder / "absent"); }), ErrorCode::not_found);
  EXPECT_EQ(code_of([&] { Pack::open(folder.path()); }), ErrorCode::io);
}

TEST_F(PackTest, DamagedRowsAreFoundByVerifyAndByRam) {
  const fs::path path = written();
  std::string bad = contents_of(path);
  bad[bad.size() - 5000] ^= 1;
  overwrite(path, bad);
  std::string message;
  const auto pack = Pack::open(path);
  EXPECT_EQ(code_of([&] { pack->verify(); }, &message), ErrorCode::corrupt);
  EXPECT_THAT(message, HasSubstr("block 0"));
  MemoryOptions ram;
  ram.placement = Placement::ram;
  EXPECT_EQ(code_of([&] { MemoryTable::open_pack(path, ram); }), ErrorCode::corrupt);
}

// A description that is well-formed, with a right checksum, but whose constants are another hash's.
TEST_F(PackTest, ConstantsOfAnotherHashAreRefused) {
  const fs::path path = written();
  const std::string good = contents_of(path);
  const std::string sum = std::to_string(EngramHash(small_table()).prime_sum(0));
  const std::string multiplier = std::to_string(EngramHash(small_table()).multipliers(1)[0]);
  for (const std::string& text : {sum, multiplier}) {
    std::string bad = good;
    const size_t at = bad.find('"' + text + '"');
    ASSERT_NE(at, std::string::npos);
    bad[at + text.size()] = bad[at + text.size()] == '1' ? '2' : '1';
    PackHeader header = parse_pack_header(std::as_bytes(std::span(bad)), bad.size(), "bad");
    const auto part = [&](const PackSection& s) {
      return std::as_bytes(std::span(bad)).subspan(s.offset, s.bytes);
    };
    const std::string sha =
        pack_fingerprint(header, part(header.description), part(header.token_map), part(header.checksums));
    for (size_t i = 0; i < 32; ++i)
      header.sha256[i] = static_cast<uint8_t>(std::stoul(sha.substr(2 * i, 2), nullptr, 16));
    const auto bytes = pack_header_bytes(header);
    std::memcpy(bad.data(), bytes.data(), bytes.size());
    EXPECT_EQ(code_of([&] { Pack::parse(std::as_bytes(std::span(bad)), "bad"); }), ErrorCode::mismatch)
        << text;
  }
}

TEST_F(PackTest, AnInterruptedBuildGoesOnWhereItStopped) {
  const EngramTableConfig table = small_table(RowFormat::fp8_e4m3_e8m0, 256, 20000);  // 160,000 rows, 44 MB
  const fs::path path = folder / "t.engram", other = folder / "u.engram";
  write_pack(other, small_pack(table));
  overwrite(path, "the old pack");
  PackToWrite pack = small_pack(table);
  const auto produce = pack.rows;
  uint64_t produced = 0;
  bool interrupt = true;
  pack.rows = [&](uint64_t first, uint64_t count, std::byte* out) {
    if (interrupt && produced > 40000) fail(ErrorCode::cancelled, "stop");
    produced += count;
    produce(first, count, out);
  };
  EXPECT_EQ(code_of([&] { write_pack(path, pack); }), ErrorCode::cancelled);
  EXPECT_EQ(contents_of(path), "the old pack");
  const uint64_t first_part = produced;
  produced = 0;
  interrupt = false;
  const uint64_t resumed = write_pack(path, pack);
  EXPECT_EQ(resumed, first_part);
  EXPECT_EQ(produced + resumed, EngramHash(table).rows());
  EXPECT_EQ(contents_of(path), contents_of(other));
  EXPECT_FALSE(fs::exists(path.string() + ".partial"));
  EXPECT_FALSE(fs::exists(path.string() + ".journal"));
}

TEST_F(PackTest, APartialFileOfAnotherPackOrADamagedOneIsNotUsed) {
  const EngramTableConfig table = small_table(RowFormat::fp8_e4m3_e8m0, 256, 20000);
  const fs::path path = folder / "t.engram";
  const auto interrupted = [&](const EngramTableConfig& config) {
    PackToWrite pack = small_pack(config);
    pack.progress = [](uint64_t done, uint64_t total) {
      if (done > total / 2) fail(ErrorCode::cancelled, "stop");
    };
    EXPECT_EQ(code_of([&] { write_pack(path, pack); }), ErrorCode::cancelled);
  };
  EngramTableConfig seeded = table;
  seeded.seed = 1;
  interrupted(seeded);
  EXPECT_EQ(write_pack(path, small_pack(table)), 0u);
  Pack::open(path)->verify();
  interrupted(table);
  const fs::path partial = path.string() + ".partial";
  std::string bytes = contents_of(partial);
  bytes[bytes.size() - 10] ^= 1;
  overwrite(partial, bytes);
  EXPECT_EQ(write_pack(path, small_pack(table)), 0u);
  Pack::open(path)->verify();
}

TEST_F(PackTest, ASecondWriterIsRefusedAndDoesNoHarm) {
  const fs::path path = folder / "t.engram";
  PackToWrite pack = small_pack(small_table());
  const auto produce = pack.rows;
  bool tried = false;
  pack.rows = [&](uint64_t first, uint64_t count, std::byte* out) {
    std::string message;
    EXPECT_EQ(code_of([&] { write_pack(path, small_pack(small_table())); }, &message), ErrorCode::limit);
    EXPECT_THAT(message, HasSubstr("another process"));
    tried = true;
    produce(first, count, out);
  };
  write_pack(path, pack);
  EXPECT_TRUE(tried);
  Pack::open(path)->verify();
}

TEST_F(PackTest, ATableOfClassesNeedsATokenMap) {
  EngramTableConfig table = small_table();
  table.raw_ids = false;
  EXPECT_EQ(code_of([&] { write_pack(folder / "t.engram", small_pack(table)); }),
            ErrorCode::invalid_argument);
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

}  // namespace
}  // namespace mneme::pack_test
