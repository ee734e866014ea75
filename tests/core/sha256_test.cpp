// Vectors: FIPS 180-4 examples and the million-'a' message of NIST's long-message test.
#include "core/sha256.h"

#include <gtest/gtest.h>

#include "mneme/error.h"
#include "scratch.h"

namespace mneme::sha256_test {
namespace {

constexpr const char* kMillion = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256, KnownVectors) {
  EXPECT_EQ(sha256_hex(std::string_view()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, PiecesOfAnySizeGiveTheSameHash) {
  const std::string message(1000000, 'a');
  for (const size_t piece : {1000000u, 4096u, 63u}) {
    Sha256 hash;
    for (size_t at = 0; at < message.size(); at += piece)
      hash.update(std::string_view(message).substr(at, piece));
    EXPECT_EQ(hash.hex(), kMillion);
  }
}

TEST(Sha256, FilesAreHashedInPiecesWithProgress) {
  const ScratchFolder folder;
  const auto path = folder.write("a", std::string(3000000, 'a'));
  uint64_t last = 0, calls = 0;
  const auto hex = sha256_file(path, [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, 3000000u);
    last = done;
    ++calls;
    return true;
  });
  EXPECT_EQ(hex, sha256_hex(std::string(3000000, 'a')));
  EXPECT_EQ(last, 3000000u);
  EXPECT_GE(calls, 3u);
  try {
    sha256_file(path, [](uint64_t, uint64_t) { return false; });
    FAIL() << "a false progress must stop";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::cancelled);
  }
}

TEST(Sha256, MissingFilesFoldersAndMisuseAreErrors) {
  const auto code = [](auto&& action) {
    try {
      action();
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::limit;
  };
  EXPECT_EQ(code([] { sha256_file("/nonexistent/file"); }), ErrorCode::not_found);
  EXPECT_EQ(code([] { sha256_file(MNEME_TEST_DATA); }), ErrorCode::io);
  EXPECT_EQ(code([] {
              Sha256 hash;
              hash.hex();
              hash.hex();
            }),
            ErrorCode::internal);
}

}  // namespace
}  // namespace mneme::sha256_test
