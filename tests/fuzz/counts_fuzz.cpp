// Coded spike counts from any bytes: decoded or refused with mneme::Error; and what was decoded, encoded
// again, decodes to the same. The first two bytes say how many counts are wanted.
#include <cstdlib>
#include <span>
#include <vector>

#include "mneme/error.h"
#include "parallel/count_coder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  std::vector<int32_t> counts(data[0] | (data[1] & 0x0f) << 8), again(counts.size());
  try {
    mneme::MessageReader in(std::as_bytes(std::span(data + 2, size - 2)), "input");
    mneme::decode_counts(in, counts);
  } catch (const mneme::Error&) {
    return 0;
  }
  mneme::MessageWriter out;
  mneme::encode_counts(counts, out);
  const mneme::MessageBytes bytes = out.take();
  mneme::MessageReader in(bytes, "encoded again");
  mneme::decode_counts(in, again);
  in.end();
  if (again != counts) std::abort();
  return 0;
}
