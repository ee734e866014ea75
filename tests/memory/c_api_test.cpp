#include <fstream>

#include "pack_support.h"

extern "C" int check_memory_from_c(const char* file, uint64_t rows, uint32_t row_bytes,
                                   const unsigned char* expected);

namespace mneme::c_api_test {
namespace {

using namespace testing_support;

class MemoryInC : public FolderTest {};

TEST_F(MemoryInC, DoesWhatItsHeaderSays) {
  constexpr uint64_t kRows = 300;
  constexpr uint32_t kRowBytes = 100;
  std::string content;
  for (uint64_t row = 0; row < kRows; ++row) content += expected_row(row, kRowBytes);
  const fs::path path = folder / "rows";
  std::ofstream(path, std::ios::binary) << content;
  EXPECT_EQ(check_memory_from_c(path.c_str(), kRows, kRowBytes,
                                reinterpret_cast<const unsigned char*>(content.data())),
            0);
}

}  // namespace
}  // namespace mneme::c_api_test
