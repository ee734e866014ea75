// The product kernels, written once over a vector vocabulary `V` (see packed_portable.cpp for the plainest
// one):
//
//   V::kLanes            8 or 16: rows of a tile that one vector holds (a tile of 16 is 16/kLanes passes)
//   V::kMaxN             rows of X computed together, as many as the registers bear
//   V::F, V::I           kLanes floats, kLanes int32;  V::B: kLanes dwords of 4 codes;  V::A: 4 activations,
//   repeated V::dot<wide>(i,b,a)  i + sum of 4 products u8 * s8 per lane; `wide` if codes exceed 127
//   V::kWideIsSigned     dot<true> multiplies codes less 128 (then -128 to 127), because that is cheaper
//   V::pairs_in_16(m)    how many sums of two products of a code <= m and an activation may be added in 16
//   bits, or
//                        1 if `dot` is as fast; if more: V::pairs(b,a), V::add_pairs and V::add_widened(i,
//                        pairs)
//
// Included inside a target region of each packed_<isa>.cpp: everything is in an unnamed namespace, so that no
// function compiled for one instruction set can be picked by the linker for another.

namespace mneme {
namespace {

// A code is stored with its Offset added, so that it lies in 0 .. MaxCode.
template <int CodeBits, int MaxCode, int SubBlock, bool KScales, bool HasMin, int Offset>
struct Format {
  static constexpr int code_bits = CodeBits, max_code = MaxCode, sub_block = SubBlock, offset = Offset;
  static constexpr bool k_scales = KScales, has_min = HasMin;
  static constexpr int subs = 256 / SubBlock;                              // sub-blocks of a K super-block
  static constexpr int super_bytes = (32 + subs * 16) * (HasMin ? 2 : 1);  // its scales
  static constexpr int block_bytes = CodeBits * 64;                        // codes of 32 columns
  static constexpr bool wide = MaxCode > 127;
};

// scale (and min) of the sub-block that holds column 32 b + 16 half, for the lanes from `lane` on
template <class V, class T>
inline __attribute__((always_inline)) void load_scales(const std::byte* scales, int64_t b, int half, int lane,
                                                       typename V::F& scale, typename V::F& min) {
  if constexpr (!T::k_scales) {
    const std::byte* at = scales + b * (T::has_min ? 64 : 32) + 2 * lane;
    scale = V::load_f16(at);
    if constexpr (T::has_min) min = V::load_f16(at + 32);
  } else {
    const std::byte* super = scales + (b >> 3) * T::super_bytes;
    const std::byte* sub = super + (T::has_min ? 64 : 32) + lane;
    const int64_t index = (b & 7) * (32 / T::sub_block) + half;
    scale = V::mul(V::load_f16(super + 2 * lane), V::load_i8(sub + index * 16));
    if constexpr (T::has_min)
      min = V::negate(V::mul(V::load_f16(super + 32 + 2 * lane), V::load_i8(sub + (T::subs + index) * 16)));
  }
}

// Codes of columns 4j..4j+3 (j in 0..7) of a block, for the lanes from `lane` on.
template <class V, class T>
inline __attribute__((always_inline)) typename V::B load_codes(const std::byte* codes, int j, int lane) {
  if constexpr (T::code_bits == 8) {
    return V::load_b(codes + 64 * j + 4 * lane);
  } else {
    const typename V::B both = V::load_b(codes + 64 * (j & 3) + 4 * lane);
    return j < 4 ? V::low_nibbles(both) : V::high_nibbles(both);
  }
}

// What `dot` leaves to be taken off: the format's offset, unless a vocabulary multiplies codes less 128
// anyway.
template <class V, class T>
constexpr int left_offset() {
  return T::wide && V::kWideIsSigned ? 0 : T::offset;
}

// What the sums of `part` (0 or 1: 16 columns with scales of their own) of block `at` of X start with.
template <class V, class T>
inline __attribute__((always_inline)) int32_t offset_term(const ProductArgs& args, int64_t at, int part) {
  constexpr int offset = left_offset<V, T>();
  if constexpr (offset == 0) return 0;
  if constexpr (T::sub_block == 16) return -offset * args.half_sums[2 * at + part];
  if constexpr (offset == 128) return args.minus128[at];
  return args.minus8[at] / 8 * offset;
}

// Prefetches the matrix as one stream, at a constant distance and every line of it: a tile's scales, its
// codes, the next tile's scales. With few rows of X a product is bound by memory, and the hardware's own
// prefetcher, which sees two streams that jump at each tile, reaches 88 % (8 bits) and 72 % (4 bits) of what
// plain loads reach; this reaches 95 % and 90 %. Into the second-level cache: fetching 4-bit codes into the
// first stops at 83 %, because its few fill buffers then wait for memory. Tried without gain: two chains of
// sums, a second prefetch nearby. With many rows a line is used often enough that one hint a block will do.
template <class V, int BlockBytes, bool EveryLine>
struct ReadAhead {
  const std::byte* at;
  int64_t step;
  inline __attribute__((always_inline)) ReadAhead(const ProductArgs& args, const std::byte* tile)
      : at(tile + V::kPrefetch), step(args.tile_bytes / (args.cols / 32)) {}
  inline __attribute__((always_inline)) void next() {
    if constexpr (EveryLine) {
#pragma GCC unroll 10
      for (int line = 0; line < BlockBytes + 64; line += 64) V::prefetch(at + line);
    } else {
      V::prefetch(at);
    }
    at += step;
  }
};

// Adds the products of columns 4 first .. 4 (first + count) of a block, L vectors of rows of W with N rows of
// X. Where a vocabulary sums pairs of products in 16 bits, as many as fit are added there before they are
// widened.
template <class V, class T, int N, int L, int Count>
inline __attribute__((always_inline)) void add_products(const std::byte* block, int first, const int8_t* q,
                                                        int64_t cols, int lane, typename V::I (&dot)[L][N]) {
  if constexpr (V::pairs_in_16(T::max_code) > 1) {
    constexpr int group = V::pairs_in_16(T::max_code) < Count ? V::pairs_in_16(T::max_code) : Count;
#pragma GCC unroll 8
    for (int j = first; j < first + Count; j += group) {
      typename V::I pairs[L][N];
#pragma GCC unroll 8
      for (int i = 0; i < group; ++i)
#pragma GCC unroll 2
        for (int l = 0; l < L; ++l) {
          const typename V::B code = load_codes<V, T>(block, j + i, lane + l * V::kLanes);
#pragma GCC unroll 16
          for (int n = 0; n < N; ++n) {
            const typename V::I two = V::pairs(code, V::repeat4(q + n * cols + 4 * (j + i)));
            pairs[l][n] = i == 0 ? two : V::add_pairs(pairs[l][n], two);
          }
        }
#pragma GCC unroll 2
      for (int l = 0; l < L; ++l)
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) dot[l][n] = V::add_widened(dot[l][n], pairs[l][n]);
    }
  } else {
#pragma GCC unroll 8
    for (int j = first; j < first + Count; ++j)
#pragma GCC unroll 2
      for (int l = 0; l < L; ++l) {
        const typename V::B code = load_codes<V, T>(block, j, lane + l * V::kLanes);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n)
          dot[l][n] = V::template dot<T::wide>(dot[l][n], code, V::repeat4(q + n * cols + 4 * j));
      }
  }
}

// N rows of X against L * kLanes rows of W, from `lane` of the tile on; integer dot products. acc: [L][N]
// vectors.
template <class V, class T, int N, int L>
inline __attribute__((always_inline)) void integer_rows(const ProductArgs& args, const std::byte* scales,
                                                        const std::byte* codes, int lane, int64_t n0,
                                                        typename V::F (&acc)[L][N]) {
  const int64_t blocks = args.cols / 32;
  const int8_t* q = args.q + n0 * args.cols;
  ReadAhead<V, T::block_bytes, N <= 4 && L * V::kLanes == 16> ahead(args, scales);
  for (int64_t b = 0; b < blocks; ++b) {
    const std::byte* block = codes + b * T::block_bytes;
    ahead.next();
    constexpr int parts = 32 / T::sub_block;  // that have scales of their own
#pragma GCC unroll 2
    for (int part = 0; part < parts; ++part) {
      typename V::I dot[L][N];
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        const typename V::I start = V::set_i(offset_term<V, T>(args, (n0 + n) * blocks + b, part));
#pragma GCC unroll 2
        for (int l = 0; l < L; ++l) dot[l][n] = start;
      }
      add_products<V, T, N, L, 8 / parts>(block, 8 / parts * part, q + b * 32, args.cols, lane, dot);
#pragma GCC unroll 2
      for (int l = 0; l < L; ++l) {
        typename V::F scale, min;
        load_scales<V, T>(scales, b, part, lane + l * V::kLanes, scale, min);
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
          const int64_t at = (n0 + n) * blocks + b;
          acc[l][n] = V::fma(V::to_f(dot[l][n]), V::mul(scale, V::set_f(args.d[at])), acc[l][n]);
          if constexpr (T::has_min) {
            const float sum =
                parts == 1 ? args.d_sum[at] : args.d[at] * static_cast<float>(args.half_sums[2 * at + part]);
            acc[l][n] = V::fma(min, V::set_f(sum), acc[l][n]);
          }
        }
      }
    }
  }
}

// N rows of float X against L * kLanes quantized rows of W: weights become floats four columns at a time.
template <class V, class T, int N, int L>
inline __attribute__((always_inline)) void float_quantized_rows(const ProductArgs& args,
                                                                const std::byte* scales,
                                                                const std::byte* codes, int lane, int64_t n0,
                                                                typename V::F (&acc)[L][N]) {
  const float* x = args.x + n0 * args.x_stride;
  for (int64_t b = 0; b < args.cols / 32; ++b) {
    for (int half = 0; half < 2; ++half) {
      typename V::F scale[L], min[L];
#pragma GCC unroll 2
      for (int l = 0; l < L; ++l)
        load_scales<V, T>(scales, b, T::sub_block == 16 ? half : 0, lane + l * V::kLanes, scale[l], min[l]);
      for (int j = 0; j < 4; ++j) {
        typename V::B code[L];
#pragma GCC unroll 2
        for (int l = 0; l < L; ++l)
          code[l] = load_codes<V, T>(codes + b * T::block_bytes, 4 * half + j, lane + l * V::kLanes);
        for (int i = 0; i < 4; ++i) {
          const int64_t column = b * 32 + 16 * half + 4 * j + i;
#pragma GCC unroll 2
          for (int l = 0; l < L; ++l) {
            const typename V::I c = V::sub_i(V::byte_of(code[l], i), V::set_i(T::offset));
            typename V::F w = V::mul(V::to_f(c), scale[l]);
            if constexpr (T::has_min) w = V::add(w, min[l]);
#pragma GCC unroll 16
            for (int n = 0; n < N; ++n)
              acc[l][n] = V::fma(w, V::set_f(x[n * args.x_stride + column]), acc[l][n]);
          }
        }
      }
    }
  }
}

enum class FloatCode { f32, f16, bf16 };

template <class V, FloatCode C>
inline __attribute__((always_inline)) typename V::F load_float(const std::byte* column) {
  if constexpr (C == FloatCode::f32) return V::load_f(reinterpret_cast<const float*>(column));
  if constexpr (C == FloatCode::f16) return V::load_f16(column);
  if constexpr (C == FloatCode::bf16) return V::load_bf16(column);
}

template <class V, FloatCode C, int N, int L>
inline __attribute__((always_inline)) void float_rows(const ProductArgs& args, const std::byte* codes,
                                                      int lane, int64_t n0, typename V::F (&acc)[L][N]) {
  constexpr int64_t size = C == FloatCode::f32 ? 4 : 2;
  const float* x = args.x + n0 * args.x_stride;
  const std::byte* column = codes + lane * size;
  for (int64_t c = 0; c < args.cols; ++c, column += 16 * size) {
#pragma GCC unroll 2
    for (int l = 0; l < L; ++l) {
      const typename V::F w = load_float<V, C>(column + l * V::kLanes * size);
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) acc[l][n] = V::fma(w, V::set_f(x[n * args.x_stride + c]), acc[l][n]);
    }
  }
}

// Which of the three inner loops a kernel runs, and of how many rows of X at most it takes all 16 rows of a
// tile at once: few rows leave registers free, the tile is then read as one stream, and there are more chains
// of sums.
template <class T>
struct IntegerLoop {
  static constexpr int kWholeTile = 2;
  template <class V, int N, int L>
  static inline __attribute__((always_inline)) void run(const ProductArgs& a, const std::byte* s,
                                                        const std::byte* c, int lane, int64_t n0,
                                                        typename V::F (&acc)[L][N]) {
    integer_rows<V, T, N, L>(a, s, c, lane, n0, acc);
  }
};
template <class T>
struct FloatQuantizedLoop {
  static constexpr int kWholeTile = 4;
  template <class V, int N, int L>
  static inline __attribute__((always_inline)) void run(const ProductArgs& a, const std::byte* s,
                                                        const std::byte* c, int lane, int64_t n0,
                                                        typename V::F (&acc)[L][N]) {
    float_quantized_rows<V, T, N, L>(a, s, c, lane, n0, acc);
  }
};
template <FloatCode C>
struct FloatLoop {
  static constexpr int kWholeTile = 4;
  template <class V, int N, int L>
  static inline __attribute__((always_inline)) void run(const ProductArgs& a, const std::byte*,
                                                        const std::byte* c, int lane, int64_t n0,
                                                        typename V::F (&acc)[L][N]) {
    float_rows<V, C, N, L>(a, c, lane, n0, acc);
  }
};

// N rows of X against the rows of one tile.
template <class V, class Loop, int N>
__attribute__((noinline)) void tile_rows(const ProductArgs& args, int64_t tile, int64_t n0) {
  constexpr int L = N <= Loop::kWholeTile ? 16 / V::kLanes : 1;
  const std::byte* scales = args.tiles + tile * args.tile_bytes;
  for (int lane = 0; lane < 16; lane += L * V::kLanes) {
    typename V::F acc[L][N];
#pragma GCC unroll 2
    for (int l = 0; l < L; ++l)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) acc[l][n] = V::set_f(0.0f);
    Loop::template run<V, N, L>(args, scales, scales + args.scale_bytes, lane, n0, acc);
#pragma GCC unroll 2
    for (int l = 0; l < L; ++l) {
      const int64_t row = tile * 16 + lane + l * V::kLanes;
      const int64_t valid = args.rows - row < V::kLanes ? args.rows - row : V::kLanes;
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        float* y = args.y + (n0 + n) * args.stride + row;
        if (valid == V::kLanes) {
          V::store_f(y, acc[l][n]);
        } else {
          float lanes[V::kLanes];
          V::store_f(lanes, acc[l][n]);
          for (int64_t i = 0; i < valid; ++i) y[i] = lanes[i];
        }
      }
    }
  }
}

template <class V, class Loop>
void product(const ProductArgs& args) {
  // Rows of X that stay in the second-level cache while the tiles of this task pass by.
  const int64_t row_bytes = args.q != nullptr ? args.cols : args.cols * 4;
  int64_t panel = (int64_t{768} << 10) / row_bytes / V::kMaxN * V::kMaxN;
  if (panel < V::kMaxN) panel = V::kMaxN;
  for (int64_t p = args.n_begin; p < args.n_end; p += panel) {
    const int64_t end = p + panel < args.n_end ? p + panel : args.n_end;
    for (int64_t tile = args.tile_begin; tile < args.tile_end; ++tile) {
      int64_t n = p;
      for (; n + V::kMaxN <= end; n += V::kMaxN) tile_rows<V, Loop, V::kMaxN>(args, tile, n);
      if constexpr (V::kMaxN > 8)
        for (; n + 8 <= end; n += 8) tile_rows<V, Loop, 8>(args, tile, n);
      if constexpr (V::kMaxN > 4)
        for (; n + 4 <= end; n += 4) tile_rows<V, Loop, 4>(args, tile, n);
      for (; n + 2 <= end; n += 2) tile_rows<V, Loop, 2>(args, tile, n);
      for (; n < end; ++n) tile_rows<V, Loop, 1>(args, tile, n);
    }
  }
}

using Q4_0 = Format<4, 15, 32, false, false, 8>;
using Q4_1 = Format<4, 15, 32, false, true, 0>;
using Q5_0 = Format<8, 31, 32, false, false, 16>;
using Q5_1 = Format<8, 31, 32, false, true, 0>;
using Q8_0 = Format<8, 255, 32, false, false, 128>;
using Q2_K = Format<4, 15, 16, true, true, 0>;
using Q3_K = Format<4, 15, 16, true, false, 4>;
using Q4_K = Format<4, 15, 32, true, true, 0>;
using Q5_K = Format<8, 31, 32, true, true, 0>;
using Q6_K = Format<8, 63, 16, true, false, 32>;

template <class V>
float quantize32(const float* x, int8_t* q, int32_t* half_sums) {
  constexpr uint32_t kInfinity = 0x7f800000u, kTiny = 0x01000000u;  // 2^-125: 127 / kTiny is still finite
  const uint32_t bits = V::max_abs_bits32(x);
  if (bits < kTiny || bits >= kInfinity) {
    for (int i = 0; i < 32; ++i) q[i] = 0;
    half_sums[0] = half_sums[1] = 0;
    return bits < kTiny ? 0.0f : __builtin_nanf("");
  }
  const float max = __builtin_bit_cast(float, bits);
  V::round32(x, 127.0f / max, q, half_sums);
  return max / 127.0f;
}

// The order is that of PackedType.
template <class V>
constexpr PackedKernels make_kernels() {
  return {{nullptr, nullptr, nullptr, product<V, IntegerLoop<Q4_0>>, product<V, IntegerLoop<Q4_1>>,
           product<V, IntegerLoop<Q5_0>>, product<V, IntegerLoop<Q5_1>>, product<V, IntegerLoop<Q8_0>>,
           product<V, IntegerLoop<Q2_K>>, product<V, IntegerLoop<Q3_K>>, product<V, IntegerLoop<Q4_K>>,
           product<V, IntegerLoop<Q5_K>>, product<V, IntegerLoop<Q6_K>>},
          {product<V, FloatLoop<FloatCode::f32>>, product<V, FloatLoop<FloatCode::f16>>,
           product<V, FloatLoop<FloatCode::bf16>>, product<V, FloatQuantizedLoop<Q4_0>>,
           product<V, FloatQuantizedLoop<Q4_1>>, product<V, FloatQuantizedLoop<Q5_0>>,
           product<V, FloatQuantizedLoop<Q5_1>>, product<V, FloatQuantizedLoop<Q8_0>>,
           product<V, FloatQuantizedLoop<Q2_K>>, product<V, FloatQuantizedLoop<Q3_K>>,
           product<V, FloatQuantizedLoop<Q4_K>>, product<V, FloatQuantizedLoop<Q5_K>>,
           product<V, FloatQuantizedLoop<Q6_K>>},
          quantize32<V>};
}

}  // namespace
}  // namespace mneme
