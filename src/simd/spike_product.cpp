#include "simd/spike_product.h"

#include <algorithm>
#include <vector>

#include "core/fail.h"
#include "simd/code_residuals.h"
#include "simd/isa.h"
#include "simd/stripe_kernels.h"

namespace mneme {
namespace {

const StripeKernels& kernels() {
  switch (active_isa()) {
#if defined(__x86_64__)
    case Isa::avx512_vnni:
      return stripe_kernels_avx512_vnni();
    case Isa::avx512:
      return stripe_kernels_avx512();
    case Isa::avx2:
      return stripe_kernels_avx2();
#endif
    default:
      return stripe_kernels_portable();
  }
}

StripeKernel kernel_of(const PackedMatrix& w) {
  switch (w.type) {
    case PackedType::q8_0:
      return kernels().q8_0[w.stripe_lines - 1];
    case PackedType::q4_0:
      return kernels().q4_0[w.stripe_lines - 1];
    case PackedType::q4_1:
      return kernels().q4_1[w.stripe_lines - 1];
    case PackedType::w8:
      return kernels().w8[w.stripe_lines - 1];
    default:
      fail(ErrorCode::internal, "spike_product: {} has no stripes", packed_layout(w.type).name);
  }
}

EventView view(const EventList& list) {
  if (list.begin.empty()) return {};
  return {list.begin.data(), list.columns.data(), list.counts.data(), list.stride};
}

// How many blocks in front lines are asked for: far enough that memory answers in time, near enough that they
// are still there. In bytes as for tiles.
int64_t blocks_ahead(const PackedMatrix& w, const EventList& list, int64_t blocks) {
  constexpr int64_t kAheadBytes = 8192;
  const int64_t bytes = stripe_scale_bytes(w) + 256 * w.stripe_lines * list.groups / blocks;
  return std::min(kAheadBytes / std::max<int64_t>(bytes, 1) + 1, blocks);
}

// From so many rows of X on, a strip of the matrix is interleaved once for all of them. With fewer that gains
// nothing (spike_gemv --batch), because reading the matrix is what takes the time.
constexpr int64_t kUnpackRows = 16;

// Scratch of this thread for 64 rows of a matrix; never shrinks.
std::byte* strip_scratch(int64_t blocks) {
  constexpr size_t kLine = 64;
  thread_local std::vector<std::byte> memory;
  const size_t size = static_cast<size_t>(blocks) * 2048 + kLine;
  if (memory.size() < size) memory.resize(size);
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return memory.data() + (kLine - address % kLine) % kLine;
}

}  // namespace

void spike_product(const PackedMatrix& w, const SpikeRows& x, int64_t tile_begin, int64_t tile_end,
                   int64_t n_begin, int64_t n_end, float* y, int64_t stride, SpikePath path) {
  require(w.stripe_lines > 0, ErrorCode::internal, "spike_product: the matrix is not in stripes");
  const int64_t tiles = stripe_tiles(w);
  require(tile_begin % tiles == 0 && (tile_end % tiles == 0 || tile_end == w.tiles()), ErrorCode::internal,
          "spike_product: tiles {} to {} are not whole stripes", tile_begin, tile_end);
  const int64_t blocks = w.cols / kBlock;
  StripeArgs args{};
  args.stripes = w.data;
  args.rows = w.rows;
  args.blocks = blocks;
  args.stripe_begin = tile_begin / tiles;
  args.stripe_end = (tile_end + tiles - 1) / tiles;
  args.dense = x.base.data();
  args.sums = x.sums.data();
  args.threshold = x.threshold.data();
  args.n_begin = n_begin;
  args.n_end = n_end;
  args.y = y;
  args.stride = stride;
  if (path == SpikePath::automatic)
    path = takes_events(x, w.cols, n_begin, n_end) ? SpikePath::events : SpikePath::dense;
  if (path == SpikePath::events) {
    require(x.listed && n_begin == 0 && n_end == x.event_rows, ErrorCode::internal,
            "spike_product: the list of events is of {} rows, not of rows {} to {}", x.event_rows, n_begin,
            n_end);
    args.events = view(x.events);
    args.ahead = blocks_ahead(w, x.events, blocks);
    args.ascending = gaps_are_dear();
    args.few = 16 * x.events.groups <= w.cols;
  } else if (n_end - n_begin >= kUnpackRows) {
    args.unpacked = strip_scratch(blocks);
  }
  thread_local std::vector<EventView> beyond;
  beyond.assign(static_cast<size_t>(n_end), EventView{});
  for (int64_t n = n_begin; n < n_end; ++n) {
    beyond[static_cast<size_t>(n)] = view(x.beyond[static_cast<size_t>(n)]);
    if (beyond[static_cast<size_t>(n)].begin != nullptr) args.beyond = beyond.data();
  }
  kernel_of(w)(args);
  if (w.residuals != nullptr)
    add_residuals(w, x, args.stripe_begin, args.stripe_end, n_begin, n_end, y, stride);
}

double spike_product_reference(const PackedMatrix& w, const int32_t* counts, float threshold, int64_t row) {
  std::vector<float> weights(static_cast<size_t>(w.cols));
  unpack_striped_row(w, row, weights.data());
  double sum = 0;
  for (int64_t c = 0; c < w.cols; ++c) sum += double{weights[static_cast<size_t>(c)]} * counts[c];
  return sum * threshold;
}

}  // namespace mneme
