// Products of spike counts with matrices in stripes for many rows of X, and the table of all such products.
// Included after stripe_kernels-inl.h.
//
// Interleaving takes a third of the time where six rows share it. For more of them a strip (64 rows of a
// stripe, all columns) is interleaved once, its 4-bit codes widened to bytes, and then read by all rows of X
// from the second-level cache: [block][part][8 groups of 4 columns][4 vectors].

namespace mneme {
namespace {

template <class V, class T>
struct Strip {
  static constexpr int parts = 16 / V::kLanes, part_bytes = 128 * V::kLanes, block_bytes = 2048;
  const std::byte* stripe;
  int64_t head_bytes;  // of the stripe
  int number;          // in the stripe

  // Part of the stripe that holds a part of this strip, and which nibbles.
  int stripe_part(int part) const { return number / T::groups * parts + part; }
  int group() const { return number % T::groups; }
  const std::byte* block(int64_t b) const { return stripe + head_bytes + b * T::block_bytes; }
  const std::byte* scales(int64_t b) const { return T::grouped ? stripe + b / 4 * T::rows * 4 : block(b); }

  inline __attribute__((always_inline)) void widen(typename V::B (&code)[4]) const {
    if constexpr (T::code_bits == 4) {
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) code[j] = group() == 0 ? V::low_nibbles(code[j]) : V::high_nibbles(code[j]);
    }
  }
  void unpack(const StripeArgs& args) const {
    std::byte* out = args.unpacked;
    constexpr int bytes = T::column_bytes;
    for (int64_t b = 0; b < args.blocks; ++b)
      for (int part = 0; part < parts; ++part)
        for (int g = 0; g < 8; ++g, out += part_bytes / 8) {
          const std::byte* at = block(b) + T::scale_bytes + 4 * bytes * g;
          const std::byte* const line[4] = {at, at + bytes, at + 2 * bytes, at + 3 * bytes};
          typename V::B code[4];
          V::interleave(line, StripeSums<V, T>::byte(stripe_part(part)), code);
          widen(code);
          std::memcpy(out, code, sizeof code);
        }
  }
};

// The offset terms of N rows of X in block b, plus what their counts have beyond ±127. A function of its own:
// an array that it indexes at run time stays in memory.
template <class V, class T, int N>
__attribute__((noinline)) void start_strip(const StripeArgs& args, const Strip<V, T>& strip, int64_t b,
                                           int part, int64_t n0, typename V::I (&start)[N][4]) {
  for (int n = 0; n < N; ++n) {
    for (int j = 0; j < 4; ++j) start[n][j] = offset_sum<V, T, left_offset<V, T>()>(args, n0 + n, b);
    const EventView& events = args.beyond[n0 + n];
    if (events.begin == nullptr) continue;
    for (uint32_t group = events.begin[b]; group < events.begin[b + 1]; ++group) {
      typename V::B code[4];
      load_columns<V, T>(strip.block(b) + T::scale_bytes, events.columns + 4 * group, strip.stripe_part(part),
                         code);
      strip.widen(code);
      for (int j = 0; j < 4; ++j)
        start[n][j] = V::template dot<T::wide>(start[n][j], code[j], V::repeat4(events.counts + 4 * group));
    }
  }
}

// Adds the products of a block of a strip with N rows of counts. As in tiles, pairs of products are summed in
// 16 bits where a vocabulary gains by it and as many as there are fit. In7Bits: so are the counts, and the
// codes keep their offset.
template <class V, class T, int N, bool In7Bits = false>
inline __attribute__((always_inline)) void add_strip_block(const std::byte* codes, const int8_t* counts,
                                                           int64_t stride, typename V::I (&dot)[N][4]) {
  constexpr int group = V::pairs_in_16(T::max_code);
  typename V::I pairs[N][4];
#pragma GCC unroll 8  // a loop would store all sums at every turn
  for (int g = 0; g < 8; ++g)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const typename V::B code = V::load_b(codes + (4 * g + j) * 4 * V::kLanes);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        const typename V::A four = V::repeat4(counts + n * stride + 4 * g);
        if constexpr (In7Bits) {
          dot[n][j] = V::add_widened(dot[n][j], V::pairs(code, four));
        } else if constexpr (group == 1) {
          dot[n][j] = V::template dot<T::wide>(dot[n][j], code, four);
        } else {
          const typename V::I two = V::pairs(code, four);
          pairs[n][j] = g % group == 0 ? two : V::add_pairs(pairs[n][j], two);
          if (g % group == group - 1) dot[n][j] = V::add_widened(dot[n][j], pairs[n][j]);
        }
      }
    }
}

// N rows of X with one part of a strip.
template <class V, class T, int N>
__attribute__((noinline)) void strip_rows(const StripeArgs& args, const Strip<V, T>& strip, int part,
                                          int64_t row, int64_t n0) {
  typename V::F acc[N][4];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) acc[n][j] = V::set_f(0.0f);
  const int64_t stride = 32 * args.blocks;
  const int8_t* counts = args.dense + n0 * stride;
  const std::byte* codes = args.unpacked + part * Strip<V, T>::part_bytes;
  const int first = 64 * strip.number + V::kLanes * part;  // row of the stripe
  for (int64_t b = 0; b < args.blocks; ++b, codes += Strip<V, T>::block_bytes, counts += 32) {
    typename V::I dot[N][4], start[N][4];
    bool in_7_bits = false;
    if constexpr (splits_counts<V, T>()) in_7_bits = have_7_bits<V, N>(counts, stride);
    if (in_7_bits) {  // so that none is beyond
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) dot[n][j] = offset_sum<V, T>(args, n0 + n, b);
      add_strip_block<V, T, N, splits_counts<V, T>()>(codes, counts, stride, dot);
    } else {
      const bool beyond = args.beyond != nullptr && any_beyond<N>(args.beyond + n0, b);
      if (beyond) start_strip<V, T, N>(args, strip, b, part, n0, start);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j)
          dot[n][j] = beyond ? start[n][j] : offset_sum<V, T, left_offset<V, T>()>(args, n0 + n, b);
      add_strip_block<V, T, N>(codes, counts, stride, dot);
    }
    const std::byte* scales = strip.scales(b);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const std::byte* at = scales + T::row_scale_bytes * (first + 16 * j);
      const typename V::F scale = load_scale<V, T>(at);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) {
        acc[n][j] = V::fma(V::to_f(dot[n][j]), scale, acc[n][j]);
        if constexpr (T::has_min) {
          const auto count = static_cast<float>(args.sums[(n0 + n) * args.blocks + b]);
          acc[n][j] = V::fma(V::load_f16(at + 2 * T::rows), V::set_f(count), acc[n][j]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      float out[V::kLanes];
      V::store_f(out, V::mul(acc[n][j], V::set_f(args.threshold[n0 + n])));
      const int64_t at = row + 16 * j, left = args.rows - at;
      if (left > 0)
        std::memcpy(args.y + (n0 + n) * args.stride + at, out,
                    static_cast<size_t>(left < V::kLanes ? left : V::kLanes) * sizeof(float));
    }
}

// The product for many rows of X. Codes of a strip are put in the order of dot products once and then serve
// all rows of a panel: as many rows of counts as fill about 768 KiB, to be found in the second-level cache by
// every strip. Rows are taken kMaxN at a time, which is what the registers bear, and those that are left over
// by fewer; a row's sums do not depend on its company.
template <class V, class T>
void unpacked_product(const StripeArgs& args) {
  constexpr int kMaxN = V::kLanes == 16 ? 6 : 2;
  int64_t panel = (int64_t{768} << 10) / (32 * args.blocks) / kMaxN * kMaxN;
  if (panel < kMaxN) panel = kMaxN;
  for (int64_t p = args.n_begin; p < args.n_end; p += panel) {
    const int64_t end = p + panel < args.n_end ? p + panel : args.n_end;
    for (int64_t stripe = args.stripe_begin; stripe < args.stripe_end; ++stripe)
      for (int number = 0; number < T::rows / 64; ++number) {
        const int64_t row = stripe * T::rows + 64 * number;
        if (row >= args.rows) break;
        const Strip<V, T> strip{args.stripes + stripe * T::bytes(args.blocks), T::head_bytes(args.blocks),
                                number};
        strip.unpack(args);
        for (int part = 0; part < Strip<V, T>::parts; ++part) {
          int64_t n = p;
          for (; n + kMaxN <= end; n += kMaxN)
            strip_rows<V, T, kMaxN>(args, strip, part, row + V::kLanes * part, n);
          if constexpr (kMaxN > 2)
            for (; n + 2 <= end; n += 2) strip_rows<V, T, 2>(args, strip, part, row + V::kLanes * part, n);
          for (; n < end; ++n) strip_rows<V, T, 1>(args, strip, part, row + V::kLanes * part, n);
        }
      }
  }
}

template <class V, class T>
void striped_product(const StripeArgs& args) {
  if (args.unpacked != nullptr) return unpacked_product<V, T>(args);
  args.events.begin != nullptr ? striped_product_of<V, T, true>(args) : striped_product_of<V, T, false>(args);
}

template <class V>
constexpr StripeKernels make_stripe_kernels() {
  return {
      {striped_product<V, StripeFormat<8, false, 128, 1>>,
       striped_product<V, StripeFormat<8, false, 128, 2>>},
      {striped_product<V, StripeFormat<4, false, 8, 1>>, striped_product<V, StripeFormat<4, false, 8, 2>>},
      {striped_product<V, StripeFormat<4, true, 0, 1>>, striped_product<V, StripeFormat<4, true, 0, 2>>},
      {striped_product<V, StripeFormat<8, false, 128, 1, true>>,
       striped_product<V, StripeFormat<8, false, 128, 2, true>>}};
}

}  // namespace
}  // namespace mneme
