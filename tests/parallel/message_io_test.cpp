// Numbers and bytes of messages: what goes in comes out, and what no writer wrote is an error.
#include "parallel/message_io.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace mneme::message_io_test {
namespace {

TEST(MessageIo, NumbersOfAllSizesComeBack) {
  MessageWriter out;
  std::vector<uint64_t> numbers{0, UINT64_MAX};
  for (int bit = 0; bit < 64; ++bit)
    for (const uint64_t near : {(uint64_t{1} << bit) - 1, uint64_t{1} << bit, (uint64_t{1} << bit) + 1})
      numbers.push_back(near);
  for (const uint64_t number : numbers) out.varint(number);
  out.text("end");
  const MessageBytes bytes = out.take();
  MessageReader in(bytes, "test");
  for (const uint64_t number : numbers) EXPECT_EQ(in.varint(UINT64_MAX), number);
  EXPECT_EQ(in.text(3), "end");
  in.end();
}

void expect_corrupt(const MessageBytes& bytes, uint64_t most) {
  MessageReader in(bytes, "test");
  try {
    ADD_FAILURE() << in.varint(most) << " was read";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt) << error.what();
  }
}

TEST(MessageIo, NumbersThatNobodyWroteAreCorrupt) {
  expect_corrupt({}, UINT64_MAX);
  expect_corrupt({std::byte{0x80}}, UINT64_MAX);  // ends in the middle
  expect_corrupt({std::byte{4}}, 3);              // beyond what is right
  for (const int last : {2, 0x7f, 0x80, 0x81}) {  // more than 64 bits
    MessageBytes bytes(9, std::byte{0x80});
    bytes.push_back(static_cast<std::byte>(last));
    bytes.push_back(std::byte{1});
    expect_corrupt(bytes, UINT64_MAX);
  }
}

}  // namespace
}  // namespace mneme::message_io_test
