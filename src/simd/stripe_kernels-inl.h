// Products of spike counts with matrices in stripes, written once over the vector vocabulary of
// packed_kernels-inl.h, and included after it; of V they use `interleave` besides.
//
// Both ways to walk a stripe, every column or the columns of a list, make the same sums: per block of 32
// columns an exact integer, then  acc += scale * sum (+ min * sum of counts)  in ascending blocks, and the
// threshold at the end. A block without events adds 0, so that leaving it out changes no bit.

namespace mneme {
namespace {

// Grouped: f32 scales, a row and 128 columns each, all of them before the blocks of the stripe.
template <int CodeBits, bool HasMin, int Offset, int Lines, bool Grouped = false>
struct StripeFormat {
  static constexpr int code_bits = CodeBits, offset = Offset, max_code = (1 << CodeBits) - 1;
  static constexpr bool has_min = HasMin, wide = max_code > 127, grouped = Grouped;
  static constexpr int lines = Lines, column_bytes = 64 * Lines;
  static constexpr int groups = CodeBits == 4 ? 2 : 1;  // of 64 rows, in a line
  static constexpr int rows = 64 * groups * Lines;
  static constexpr int scale_bytes = Grouped ? 0 : rows * (HasMin ? 4 : 2);  // of a block
  static constexpr int block_bytes = scale_bytes + 32 * column_bytes;
  static constexpr int row_scale_bytes = Grouped ? 4 : 2;
  static constexpr int64_t head_bytes(int64_t blocks) { return Grouped ? blocks / 4 * rows * 4 : 0; }
  static constexpr int64_t bytes(int64_t blocks) { return head_bytes(blocks) + blocks * block_bytes; }
};

// A stripe is computed in parts, what a vector's width takes of a line: 1 or 2 a line. Vector j of group g of
// part p of line l holds rows 64 (groups l + g) + 16 j + kLanes p and following.
template <class V, class T>
struct StripeSums {
  static constexpr int line_parts = 16 / V::kLanes, parts = line_parts * T::lines;
  typename V::F acc[parts][T::groups][4];  // of one row of X
  static constexpr int row(int part, int g, int j) {
    return 64 * (T::groups * (part / line_parts) + g) + 16 * j + V::kLanes * (part % line_parts);
  }
  static constexpr int byte(int part) {
    return 64 * (part / line_parts) + 4 * V::kLanes * (part % line_parts);
  }
};
template <class V, class T>
using BlockSums = typename V::I[T::groups][4];

// What sums of a block are while its columns are walked. Where a vocabulary adds products in pairs to 16 bits
// before it widens them (AVX2), 4-bit codes stay in 16 bits for the whole block: 16 products of 15 and 127
// fit.
template <class V, class T>
constexpr bool sums_in_16() {
  return V::pairs_in_16(T::max_code) >= 8;
}
// Whether wide codes are multiplied in 16 bits, where only counts of 7 bits have room: 255 * 64 * 2 = 32,640.
// Others are split in two. It costs a third less than to move signs from codes to counts, as V::dot<true>
// does.
template <class V, class T>
constexpr bool splits_counts() {
  return T::wide && V::kWideIsSigned;
}
// Whether four counts, as bytes of a word, lie in -64 .. 63: the two highest bits of each are alike.
inline __attribute__((always_inline)) bool have_7_bits(uint32_t four) {
  return ((four ^ four << 1) & 0x80808080u) == 0;
}

// Whether N rows of 32 counts, `stride` apart, do: asked once a block where none of it is skipped.
template <class V, int N>
inline __attribute__((always_inline)) bool have_7_bits(const int8_t* counts, int64_t stride) {
  bool all = true;
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) all &= V::have_7_bits(counts + n * stride);
  return all;
}

// Adds the products of four columns, interleaved, with four counts, which have 7 bits where splits_counts
// says so. In16: to sums of pairs in 16 bits.
template <class V, class T, bool In16>
inline __attribute__((always_inline)) void add_products_of(const typename V::B (&code)[4],
                                                           typename V::A counts, BlockSums<V, T>& dot) {
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    if constexpr (T::code_bits == 8) {
      if constexpr (splits_counts<V, T>())
        dot[0][j] = V::add_widened(dot[0][j], V::pairs(code[j], counts));
      else
        dot[0][j] = V::template dot<T::wide>(dot[0][j], code[j], counts);
    } else {
      const typename V::B low = V::low_nibbles(code[j]), high = V::high_nibbles(code[j]);
      if constexpr (In16) {
        dot[0][j] = V::add_pairs(dot[0][j], V::pairs(low, counts));
        dot[1][j] = V::add_pairs(dot[1][j], V::pairs(high, counts));
      } else {
        dot[0][j] = V::template dot<false>(dot[0][j], low, counts);
        dot[1][j] = V::template dot<false>(dot[1][j], high, counts);
      }
    }
  }
}

// The same with any counts of 8 bits.
template <class V, class T, bool In16 = false>
inline __attribute__((always_inline)) void add_columns(const typename V::B (&code)[4], const int8_t* counts,
                                                       BlockSums<V, T>& dot) {
  if constexpr (splits_counts<V, T>()) {
    uint32_t four;
    std::memcpy(&four, counts, 4);
    if (__builtin_expect(!have_7_bits(four), 0)) {
      const typename V::A all = V::repeat4(counts), most = V::clamp_7_bits(all);
      add_products_of<V, T, In16>(code, V::sub_bytes(all, most), dot);
      return add_products_of<V, T, In16>(code, most, dot);
    }
  }
  add_products_of<V, T, In16>(code, V::repeat4(counts), dot);
}

template <class V, class T>
inline __attribute__((always_inline)) void load_columns(const std::byte* codes, const uint8_t* columns,
                                                        int part, typename V::B (&code)[4]) {
  constexpr int bytes = T::column_bytes;
  uint32_t four;
  std::memcpy(&four, columns, 4);
  const std::byte* const line[4] = {codes + bytes * (four & 255), codes + bytes * (four >> 8 & 255),
                                    codes + bytes * (four >> 16 & 255), codes + bytes * (four >> 24)};
  V::interleave(line, StripeSums<V, T>::byte(part), code);
}

// Asks for lines in front of the walk, as many at each step as it consumes: in bursts they would stand in the
// way of its own reads. Into the first-level cache where events are few; many would fill its few buffers.
// Within a block backwards where ascending lines make a processor fetch their neighbours too, in vain
// (Intel), and forwards where its prefetcher has more buffers than a core's own requests (AMD): see
// args.ascending.
template <class V, class T, bool Listed>
struct StripeAhead;

template <class V, class T>
struct StripeAhead<V, T, true> {
  const EventView& events;
  const int64_t blocks;
  const bool few, ascending;
  const std::byte* block;
  int64_t b;
  uint32_t left;  // groups of the block

  inline __attribute__((always_inline)) StripeAhead(const StripeArgs& args, const std::byte* stripe)
      : events(args.events),
        blocks(args.blocks),
        few(args.few),
        ascending(args.ascending),
        block(stripe + args.ahead * T::block_bytes),
        b(args.ahead < args.blocks ? args.ahead : 0),
        left(events.begin[b + 1] - events.begin[b]) {}
  inline __attribute__((always_inline)) void next() {
    if (ascending)
      few ? ask<true, true>() : ask<false, true>();
    else
      few ? ask<true, false>() : ask<false, false>();
  }
  template <bool Near, bool Ascending>
  inline __attribute__((always_inline)) void ask() {
    while (left == 0) {  // ends, because there is an event: the one that the walk is at
      block += T::block_bytes;
      b = b + 1 == blocks ? 0 : b + 1;
      left = events.begin[b + 1] - events.begin[b];
      if (left == 0) continue;
#pragma GCC unroll 8
      for (int line = 0; line < T::scale_bytes; line += 64) V::template prefetch_to<Near>(block + line);
    }
    const std::byte* codes = block + T::scale_bytes;
    const uint32_t group = Ascending ? events.begin[b + 1] - left : events.begin[b] + left - 1;
    --left;
    uint32_t four;
    std::memcpy(&four, events.columns + 4 * group, 4);
#pragma GCC unroll 4
    for (int step = 0; step < 4; ++step) {
      const int i = Ascending ? step : 3 - step;
#pragma GCC unroll 2
      for (int line = 0; line < T::lines; ++line)
        V::template prefetch_to<Near>(codes + T::column_bytes * (four >> 8 * i & 255) + 64 * line);
    }
  }
};

template <class V, class T>
struct StripeAhead<V, T, false> {
  static constexpr int step = T::block_bytes / 8 / 64 * 64;  // of 8 steps a block; the last one has the rest
  const std::byte* at;
  int steps = 0;
  inline __attribute__((always_inline)) StripeAhead(const StripeArgs&, const std::byte* stripe)
      : at(stripe + V::kPrefetch) {}
  inline __attribute__((always_inline)) void next() {
#pragma GCC unroll 10
    for (int line = 0; line < step; line += 64) V::prefetch(at + line);
    at += step;
    if (++steps < 8) return;
    steps = 0;
#pragma GCC unroll 8
    for (int line = 0; line < T::block_bytes - 8 * step; line += 64) V::prefetch(at + line);
    at += T::block_bytes - 8 * step;
  }
};

template <class V, class T>
inline __attribute__((always_inline)) typename V::F load_scale(const std::byte* at) {
  if constexpr (T::grouped)
    return V::load_f(reinterpret_cast<const float*>(at));
  else
    return V::load_f16(at);
}

// acc += scale * sum (+ min * sum of counts) for a block of one part and N rows of X.
template <class V, class T, int N>
inline __attribute__((always_inline)) void finish_block(const StripeArgs& args, const std::byte* scales,
                                                        int64_t b, int part, int64_t n0,
                                                        const BlockSums<V, T> (&dot)[N],
                                                        StripeSums<V, T> (&sums)[N]) {
#pragma GCC unroll 2
  for (int g = 0; g < T::groups; ++g)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const std::byte* at = scales + T::row_scale_bytes * StripeSums<V, T>::row(part, g, j);
      const typename V::F scale = load_scale<V, T>(at);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        typename V::F& acc = sums[n].acc[part][g][j];
        acc = V::fma(V::to_f(dot[n][g][j]), scale, acc);
        if constexpr (T::has_min) {
          const auto count = static_cast<float>(args.sums[(n0 + n) * args.blocks + b]);
          acc = V::fma(V::load_f16(at + 2 * T::rows), V::set_f(count), acc);
        }
      }
    }
}

// What takes the codes' offset off: the sums of block b of row n of X start with it. Strips multiply by
// V::dot alone, which may have taken it off (left_offset).
template <class V, class T, int offset = T::offset>
inline __attribute__((always_inline)) typename V::I offset_sum(const StripeArgs& args, int64_t n, int64_t b) {
  return V::set_i(offset == 0 ? 0 : -offset * args.sums[n * args.blocks + b]);
}

// Whether one of N rows of X has counts beyond ±127 in block b.
template <int N>
inline __attribute__((always_inline)) bool any_beyond(const EventView* rows, int64_t b) {
  bool any = false;
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) any |= rows[n].begin != nullptr && rows[n].begin[b] != rows[n].begin[b + 1];
  return any;
}

// The offset terms of N rows of X in block b, plus what their counts have beyond ±127. A function of its own:
// an array that is indexed at run time stays in memory.
template <class V, class T, int N, int Parts>
__attribute__((noinline)) void start_block(const StripeArgs& args, const std::byte* codes, int64_t b,
                                           int first, int64_t n0, BlockSums<V, T> (&start)[Parts][N]) {
  for (int p = 0; p < Parts; ++p)
    for (int n = 0; n < N; ++n) {
      for (int g = 0; g < T::groups; ++g)
        for (int j = 0; j < 4; ++j) start[p][n][g][j] = offset_sum<V, T>(args, n0 + n, b);
      const EventView& events = args.beyond[n0 + n];
      if (events.begin == nullptr) continue;
      for (uint32_t group = events.begin[b]; group < events.begin[b + 1]; ++group) {
        typename V::B code[4];
        load_columns<V, T>(codes, events.columns + 4 * group, first + p, code);
        add_columns<V, T>(code, events.counts + 4 * group, start[p][n]);
      }
    }
}

// What the sums of block b start with: `start` if it was made, because counts are beyond ±127.
template <class V, class T>
inline __attribute__((always_inline)) typename V::I first_sum(const StripeArgs& args, bool beyond,
                                                              const typename V::I& start, int64_t n,
                                                              int64_t b) {
  return beyond ? start : offset_sum<V, T>(args, n, b);
}

// Adds the products of a block's columns, or of those in the list, with N rows of counts, `stride` apart.
template <class V, class T, int N, bool Listed, int Parts, bool In7Bits>
inline __attribute__((always_inline)) void walk_block(const StripeArgs& args, const std::byte* codes,
                                                      const int8_t* counts, int64_t stride, int64_t b,
                                                      int first, StripeAhead<V, T, Listed>& ahead, bool asks,
                                                      BlockSums<V, T> (&dot)[Parts][N]) {
  constexpr bool in_16 = sums_in_16<V, T>();
  constexpr int bytes = T::column_bytes;
  const uint32_t begin = Listed ? args.events.begin[b] : 0, end = Listed ? args.events.begin[b + 1] : 8;
  typename V::B code[4];
  for (uint32_t group = begin; group < end; ++group) {
    if (asks && first == 0) ahead.next();
#pragma GCC unroll 4
    for (int p = 0; p < Parts; ++p) {
      if constexpr (Listed) {
        load_columns<V, T>(codes, args.events.columns + 4 * group, first + p, code);
      } else {
        const std::byte* at = codes + 4 * bytes * group;
        const std::byte* const line[4] = {at, at + bytes, at + 2 * bytes, at + 3 * bytes};
        V::interleave(line, StripeSums<V, T>::byte(first + p), code);
      }
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const int8_t* const four = counts + n * stride + 4 * group;
        if constexpr (In7Bits)
          add_products_of<V, T, in_16>(code, V::repeat4(four), dot[p][n]);
        else
          add_columns<V, T, in_16>(code, four, dot[p][n]);
      }
    }
  }
}

// One block of `Parts` parts of a stripe from part `first` on, with N rows of X. `asks`: for the lines in
// front of the walk.
template <class V, class T, int N, bool Listed, int Parts>
inline __attribute__((always_inline)) void stripe_block(const StripeArgs& args, const std::byte* scales,
                                                        const std::byte* block, int64_t b, int first,
                                                        int64_t n0, StripeSums<V, T> (&sums)[N],
                                                        StripeAhead<V, T, Listed>& ahead, bool asks) {
  constexpr bool in_16 = sums_in_16<V, T>();
  const std::byte* codes = block + T::scale_bytes;
  BlockSums<V, T> dot[Parts][N], start[Parts][N];
  const bool beyond = args.beyond != nullptr && any_beyond<N>(args.beyond + n0, b);
  if (beyond) start_block<V, T, N, Parts>(args, codes, b, first, n0, start);
#pragma GCC unroll 4
  for (int p = 0; p < Parts; ++p)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
      for (int g = 0; g < T::groups; ++g)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          dot[p][n][g][j] = in_16 ? V::set_i(0) : first_sum<V, T>(args, beyond, start[p][n][g][j], n0 + n, b);
  const int8_t* const counts =
      Listed ? args.events.counts + n0 * args.events.stride : args.dense + (n0 * args.blocks + b) * 32;
  const int64_t stride = Listed ? args.events.stride : 32 * args.blocks;
  bool in_7_bits = false;
  if constexpr (!Listed && splits_counts<V, T>()) in_7_bits = have_7_bits<V, N>(counts, stride);
  if (in_7_bits)
    walk_block<V, T, N, Listed, Parts, true>(args, codes, counts, stride, b, first, ahead, asks, dot);
  else
    walk_block<V, T, N, Listed, Parts, false>(args, codes, counts, stride, b, first, ahead, asks, dot);
  if constexpr (in_16) {
#pragma GCC unroll 4
    for (int p = 0; p < Parts; ++p)
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 2
        for (int g = 0; g < T::groups; ++g)
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j)
            dot[p][n][g][j] =
                V::add_widened(first_sum<V, T>(args, beyond, start[p][n][g][j], n0 + n, b), dot[p][n][g][j]);
  }
#pragma GCC unroll 4
  for (int p = 0; p < Parts; ++p) finish_block<V, T, N>(args, scales, b, first + p, n0, dot[p], sums);
}

template <class V, class T>
inline __attribute__((always_inline)) void store_stripe(const StripeArgs& args, int64_t stripe, int64_t n,
                                                        const StripeSums<V, T>& sums) {
  const typename V::F threshold = V::set_f(args.threshold[n]);
  float out[T::rows];
#pragma GCC unroll 4
  for (int p = 0; p < StripeSums<V, T>::parts; ++p)
#pragma GCC unroll 2
    for (int g = 0; g < T::groups; ++g)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j)
        V::store_f(out + StripeSums<V, T>::row(p, g, j), V::mul(sums.acc[p][g][j], threshold));
  const int64_t row = stripe * T::rows, left = args.rows - row;
  std::memcpy(args.y + n * args.stride + row, out,
              static_cast<size_t>(left < T::rows ? left : T::rows) * sizeof(float));
}

// N rows of X with one stripe. `asks`: it is not in the caches yet.
template <class V, class T, int N, bool Listed>
__attribute__((noinline)) void stripe_rows(const StripeArgs& args, int64_t stripe, int64_t n0, bool asks) {
  // Both lines of a column while they are at hand, if their sums fit in registers.
  constexpr int kTogether = N > 1 ? 1 : V::kLanes == 16 ? StripeSums<V, T>::parts : 2 / T::groups;
  StripeSums<V, T> sums[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
    for (int p = 0; p < StripeSums<V, T>::parts; ++p)
#pragma GCC unroll 2
      for (int g = 0; g < T::groups; ++g)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sums[n].acc[p][g][j] = V::set_f(0.0f);
  const std::byte* const head = args.stripes + stripe * T::bytes(args.blocks);
  const std::byte* block = head + T::head_bytes(args.blocks);
  StripeAhead<V, T, Listed> ahead(args, block);
  for (int64_t b = 0; b < args.blocks; ++b, block += T::block_bytes) {
    if (Listed && args.events.begin[b] == args.events.begin[b + 1]) continue;
    const std::byte* const scales = T::grouped ? head + b / 4 * T::rows * 4 : block;
#pragma GCC unroll 4
    for (int part = 0; part < StripeSums<V, T>::parts; part += kTogether)
      stripe_block<V, T, N, Listed, kTogether>(args, scales, block, b, part, n0, sums, ahead, asks);
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) store_stripe<V, T>(args, stripe, n0 + n, sums[n]);
}

template <class V, class T, bool Listed>
void striped_product_of(const StripeArgs& args) {
  // As many rows of X at once as the registers bear: 4 N vectors of integer sums, twice that for 4 bits. The
  // next ones find the stripe in the second-level cache.
  constexpr int kMaxN = V::kLanes == 16 && T::groups == 1 ? 4 : 2;
  for (int64_t stripe = args.stripe_begin; stripe < args.stripe_end; ++stripe) {
    int64_t n = args.n_begin;
    if constexpr (kMaxN > 2)
      for (; n + kMaxN <= args.n_end; n += kMaxN)
        stripe_rows<V, T, kMaxN, Listed>(args, stripe, n, n == args.n_begin);
    for (; n + 2 <= args.n_end; n += 2) stripe_rows<V, T, 2, Listed>(args, stripe, n, n == args.n_begin);
    for (; n < args.n_end; ++n) stripe_rows<V, T, 1, Listed>(args, stripe, n, n == args.n_begin);
  }
}

}  // namespace
}  // namespace mneme
