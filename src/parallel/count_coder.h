// Spike counts as few bytes: an entropy coder for whole numbers that are mostly small, about as often
// negative as positive, and often zero.
//
// A count is a magnitude and a sign. Magnitudes below 16 are symbols of their own; above, a symbol stands for
// half an octave, and the position in it follows as plain bits (like the buckets of JPEG or of Deflate's
// lengths). Symbols are coded by a range asymmetric numeral system with one table a message (rANS; Duda 2013,
// arXiv 1311.2540, byte-wise as in Giesen's public-domain description): within a few thousandths of a bit of
// the entropy of the message. A count that is not silent costs one plain bit more, its sign, which carries no
// information that a table could use.
//
//   byte     0: plain, an int8 a count (where a table would cost more than it saves); 1: coded
//   varint   symbols in the table, S (1..45)
//   byte     level of each: 0 it does not occur, else its frequency is about 2^((1 - level) / 8). Eighths
//            of an octave cost 0.0005 bits a count; a short message would pay more for exact frequencies
//   varint   bytes of the coded symbols, then these
//   varint   bytes of plain bits, then these (first bit lowest)
//
// The decoder trusts nothing: it checks the table, every byte it reads, that the state ends where the encoder
// began, and that unused bits are 0.
#pragma once
#include <cstdint>
#include <span>

#include "parallel/message_io.h"

namespace mneme {

/// Appends `counts`, at most kMostCount (simd/spike.h) in magnitude, to a message. Throws Error(internal) for
/// a count beyond.
void encode_counts(std::span<const int32_t> counts, MessageWriter& out);

/// Fills `counts` with as many as it is long, none beyond kMostCount. Throws Error(corrupt) for bytes that
/// encode_counts did not write.
void decode_counts(MessageReader& in, std::span<int32_t> counts);

}  // namespace mneme
