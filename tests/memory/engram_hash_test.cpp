#include "memory/engram_hash.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "core/file.h"
#include "core/random.h"
#include "memory/engram_config.h"
#include "mneme/error.h"

namespace mneme::engram_hash_test {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;

using Numbers = std::vector<uint64_t>;

Numbers numbers(std::span<const uint64_t> span) {
  return {span.begin(), span.end()};
}

// DeepSeek-V4.1-Flash: classes of its token map, orders 2 to 4, layers 1 and 14.
EngramTableConfig v41() {
  EngramTableConfig config;
  config.compressed_vocab = 99092;
  config.pad_id = 2;
  config.max_ngram = 4;
  config.base_rows = {16'000'000, 16'000'000, 16'000'000};
  config.layer_ids = {1, 14};
  config.head_dim = 256;
  config.format = RowFormat::fp8_e4m3_e8m0;
  return config;
}

// The demonstration that came with the paper: orders 2 and 3, layers 1 and 15.
EngramTableConfig demonstration() {
  EngramTableConfig config;
  config.compressed_vocab = 99092;
  config.pad_id = 2;
  config.base_rows = {646'400, 646'400};
  config.layer_ids = {1, 15};
  return config;
}

// Qwen3.8-Flash-Next: raw ids, another generator, documents cut at their end token.
EngramTableConfig qwen() {
  EngramTableConfig config;
  config.hash = EngramTableConfig::Hash::splitmix64;
  config.seed = 1234;
  config.compressed_vocab = 248'320;
  config.raw_ids = true;
  config.base_rows = {20'000'000, 20'000'000};
  config.layer_ids = {0};
  config.head_dim = 160;
  config.rows_multiple = 128;
  config.boundary = EngramTableConfig::Boundary::eos;
  config.boundary_id = 248'044;
  return config;
}

EngramTableConfig with_layers(uint32_t vocab, uint32_t max_ngram, std::vector<uint32_t> layers) {
  EngramTableConfig config;
  config.compressed_vocab = vocab;
  config.max_ngram = max_ngram;
  config.base_rows.assign(max_ngram - 1, 1000);
  config.layer_ids = std::move(layers);
  return config;
}

// Rows of a position counted from the first of each head, as publications list them.
Numbers local_rows(const EngramHash& hash, size_t layer, const std::vector<TokenClass>& ids, size_t t,
                   uint32_t order) {
  const uint32_t heads = hash.config().heads;
  const Numbers all = hash.rows_of(layer, {}, ids);
  Numbers out;
  for (uint32_t h = 0; h < heads; ++h) {
    const size_t head = (order - 2) * heads + h;
    out.push_back(all[t * hash.config().rows_per_token() + head] - hash.offsets(layer)[head]);
  }
  return out;
}

TEST(EngramHash, MultipliersOfPublishedTables) {
  const EngramHash big(v41());
  EXPECT_THAT(big.multipliers(0),
              ElementsAre(76632096046245u, 4839876093313u, 35959672319349u, 73987337458391u));
  EXPECT_THAT(big.multipliers(1),
              ElementsAre(67716810739261u, 51510806800915u, 30921347202721u, 82619226485591u));
  const EngramHash three(with_layers(99092, 3, {2, 15}));
  EXPECT_THAT(three.multipliers(0), ElementsAre(76507469730479u, 37097805264573u, 22647385550623u));
  EXPECT_THAT(three.multipliers(1), ElementsAre(28919099099511u, 56020370062535u, 53929037264533u));
}

TEST(EngramHash, MultipliersOfSmallVocabularies) {
  EXPECT_THAT(EngramHash(with_layers(256, 3, {1})).multipliers(0),
              ElementsAre(29662608052400909u, 1873410163432121u, 13919202536988139u));
  const EngramHash hash(with_layers(64, 4, {0, 1}));
  EXPECT_THAT(hash.multipliers(0),
              ElementsAre(91795853365445891u, 38880362994447277u, 5904907108195281u, 2381883302643169u));
  EXPECT_THAT(hash.multipliers(1),
              ElementsAre(118650432209603643u, 7493640653728489u, 55676810147952557u, 114555519428547269u));
}

TEST(EngramHash, PrimesOfPublishedTables) {
  const EngramHash big(v41());
  EXPECT_EQ(big.primes(0).front(), 16000057u);
  EXPECT_EQ(big.primes(0).back(), 16000463u);
  EXPECT_EQ(big.primes(1).front(), 16000477u);
  EXPECT_EQ(big.primes(1).back(), 16000889u);
  EXPECT_EQ(big.prime_sum(0), 384'006'168u);
  EXPECT_EQ(big.prime_sum(1), 384'016'682u);
  EXPECT_EQ(big.first_row(1), 384'006'168u);
  EXPECT_EQ(big.rows(), 384'006'168u + 384'016'682u);
  const EngramHash demo(demonstration());
  EXPECT_THAT(demo.primes(0), ElementsAre(646403, 646411, 646421, 646423, 646433, 646453, 646519, 646523,
                                          646537, 646543, 646549, 646571, 646573, 646577, 646609, 646619));
  EXPECT_THAT(demo.primes(1), ElementsAre(646631, 646637, 646643, 646669, 646687, 646721, 646757, 646771,
                                          646781, 646823, 646831, 646837, 646843, 646859, 646873, 646879));
  EXPECT_EQ(demo.prime_sum(0), 10'344'164u);
  EXPECT_EQ(demo.prime_sum(1), 10'348'242u);
}

TEST(EngramHash, RowsOfV41) {
  const EngramHash hash(v41());
  const std::vector<TokenClass> ids{5, 7, 11, 13};
  EXPECT_EQ(local_rows(hash, 0, ids, 0, 2),
            (Numbers{5412672, 2319102, 3492491, 12880035, 10962670, 15657298, 2004551, 15350693}));
  EXPECT_EQ(local_rows(hash, 0, ids, 0, 3),
            (Numbers{15493752, 7788297, 11409480, 9433684, 15163805, 10029243, 2328030, 7005601}));
  EXPECT_EQ(local_rows(hash, 0, ids, 0, 4),
            (Numbers{350501, 4420638, 7870431, 1595317, 2745442, 12470939, 15400513, 4003574}));
  EXPECT_EQ(local_rows(hash, 0, ids, 3, 2),
            (Numbers{4449004, 1571902, 14401519, 5039072, 14999483, 2320547, 11981404, 12752219}));
  EXPECT_EQ(local_rows(hash, 0, ids, 3, 3),
            (Numbers{589008, 5697715, 8611112, 15208646, 698518, 9445327, 14567412, 774789}));
  EXPECT_EQ(local_rows(hash, 0, ids, 3, 4),
            (Numbers{12269344, 11329719, 8776950, 15501008, 14650339, 5374266, 5297732, 1898944}));
}

TEST(EngramHash, RowsOfTheDemonstration) {
  const EngramHash hash(demonstration());
  const std::vector<TokenClass> ids{5, 7, 11};
  EXPECT_EQ(local_rows(hash, 0, ids, 0, 2),
            (Numbers{417694, 153810, 631746, 619567, 19819, 4616, 64500, 103595}));
  EXPECT_EQ(local_rows(hash, 0, ids, 0, 3),
            (Numbers{142458, 557886, 379397, 606178, 191641, 26676, 195389, 29662}));
  EXPECT_EQ(local_rows(hash, 0, ids, 2, 2),
            (Numbers{226661, 426445, 378594, 544818, 315632, 373487, 248995, 176606}));
  EXPECT_EQ(local_rows(hash, 0, ids, 2, 3),
            (Numbers{75877, 393419, 174260, 310385, 395984, 603794, 143996, 560113}));
}

// The constants that Qwen's checkpoint ships as tensors.
TEST(EngramHash, ConstantsOfQwen) {
  const EngramHash hash(qwen());
  EXPECT_THAT(hash.multipliers(0), ElementsAre(23703573157769u, 20109073645365u, 8052911324071u));
  EXPECT_EQ(hash.offsets(0)[15], 300'001'275u);
  EXPECT_EQ(hash.prime_sum(0), 320'001'446u);
  EXPECT_EQ(hash.layer_rows(0), 320'001'536u);
  EXPECT_EQ(hash.rows(), 320'001'536u);
}

std::vector<std::vector<TokenClass>> seen_by(const EngramTableConfig& config,
                                             const std::vector<TokenClass>& ids) {
  std::vector<TokenClass> flat(ids.size() * config.max_ngram);
  EngramHash(config).contexts({}, ids, flat);
  std::vector<std::vector<TokenClass>> out;
  for (size_t t = 0; t < ids.size(); ++t)
    out.emplace_back(flat.begin() + static_cast<int64_t>(t * config.max_ngram),
                     flat.begin() + static_cast<int64_t>((t + 1) * config.max_ngram));
  return out;
}

TEST(EngramHash, LookBackAtTheStartReadsPad) {
  EngramTableConfig config = with_layers(100, 3, {0});
  config.pad_id = 9;
  EXPECT_THAT(seen_by(config, {4, 5, 6}),
              ElementsAre(ElementsAre(4, 9, 9), ElementsAre(5, 4, 9), ElementsAre(6, 5, 4)));
}

TEST(EngramHash, AMaskedTokenHidesItselfAndEverythingOlder) {
  EngramTableConfig config = with_layers(100, 4, {0});
  config.pad_id = 9;
  EXPECT_THAT(seen_by(config, {4, -1, 5, 6}), ElementsAre(ElementsAre(4, 9, 9, 9), ElementsAre(9, 9, 9, 9),
                                                          ElementsAre(5, 9, 9, 9), ElementsAre(6, 5, 9, 9)));
}

TEST(EngramHash, ResetBeginsAgainAtADocumentsFirstToken) {
  EngramTableConfig config = with_layers(100, 3, {0});
  config.pad_id = 9;
  config.boundary = EngramTableConfig::Boundary::reset;
  config.boundary_id = 1;
  EXPECT_THAT(seen_by(config, {4, 1, 5, 6}), ElementsAre(ElementsAre(4, 9, 9), ElementsAre(1, 9, 9),
                                                         ElementsAre(5, 1, 9), ElementsAre(6, 5, 1)));
}

TEST(EngramHash, AnEndTokenReadsAsItselfWithEverythingOlder) {
  EngramTableConfig config = with_layers(100, 4, {0});
  config.pad_id = 9;
  config.boundary = EngramTableConfig::Boundary::eos;
  config.boundary_id = 1;
  EXPECT_THAT(seen_by(config, {4, 3, 1, 5, 6}),
              ElementsAre(ElementsAre(4, 1, 1, 1), ElementsAre(3, 4, 1, 1), ElementsAre(1, 3, 4, 1),
                          ElementsAre(5, 1, 1, 1), ElementsAre(6, 5, 1, 1)));
}

struct Golden {
  EngramTableConfig config;
  std::vector<TokenClass> ids;
  Json json;
};

std::vector<Golden> golden_cases() {
  std::vector<Golden> out;
  const Json file =
      parse_json(read_text_file(fs::path(MNEME_TEST_DATA) / "engram/hash_golden.json"), "golden");
  for (const Json& entry : file.at("cases"))
    out.push_back({engram_table_from_json(entry.at("config").dump(), "config"),
                   entry.at("ids").get<std::vector<TokenClass>>(), entry});
  return out;
}

Numbers parsed(const Json& list) {
  Numbers out;
  for (const Json& text : list) out.push_back(std::stoull(text.get<std::string>()));
  return out;
}

TEST(EngramHash, RandomConfigsEqualThePythonReference) {
  const auto cases = golden_cases();
  ASSERT_GE(cases.size(), 10u);
  for (const Golden& golden : cases) {
    const EngramHash hash(golden.config);
    SCOPED_TRACE(golden.json.at("config").dump());
    EXPECT_EQ(hash.rows(), std::stoull(golden.json.at("rows_total").get<std::string>()));
    for (size_t layer = 0; layer < hash.layers(); ++layer) {
      EXPECT_EQ(numbers(hash.multipliers(layer)), parsed(golden.json.at("multipliers")[layer]));
      EXPECT_EQ(numbers(hash.primes(layer)), parsed(golden.json.at("primes")[layer]));
      Numbers expected;
      for (const Json& row : golden.json.at("rows")[layer]) {
        const Numbers part = parsed(row);
        expected.insert(expected.end(), part.begin(), part.end());
      }
      EXPECT_EQ(hash.rows_of(layer, {}, golden.ids), expected);
    }
  }
}

TEST(EngramHash, ChunksWithLookBackEqualOneRun) {
  Pcg64 random(4);
  for (const Golden& golden : golden_cases()) {
    const EngramHash hash(golden.config);
    std::vector<TokenClass> ids(60);
    for (TokenClass& id : ids) {
      const uint64_t draw = random.below(8);
      id = draw == 0   ? -1
           : draw == 1 ? static_cast<TokenClass>(std::max<int64_t>(0, golden.config.boundary_id))
                       : static_cast<TokenClass>(random.below(golden.config.compressed_vocab));
    }
    const Numbers whole = hash.rows_of(0, {}, ids);
    for (const size_t chunk : {size_t{1}, size_t{7}, ids.size()}) {
      Numbers pieces;
      for (size_t at = 0; at < ids.size(); at += chunk) {
        const size_t keep = std::min(at, hash.look_back());
        const auto run = std::span(ids).subspan(at, std::min(chunk, ids.size() - at));
        const Numbers rows = hash.rows_of(0, std::span(ids).subspan(at - keep, keep), run);
        pieces.insert(pieces.end(), rows.begin(), rows.end());
      }
      EXPECT_EQ(pieces, whole) << "chunks of " << chunk;
    }
  }
}

TEST(EngramHash, EveryRowLiesInItsHeadsRange) {
  EngramTableConfig config = with_layers(5000, 4, {3, 0});
  config.base_rows = {2, 1000, 2};
  config.rows_multiple = 64;
  const EngramHash hash(config);
  std::vector<TokenClass> ids(400);
  std::iota(ids.begin(), ids.end(), 4500);
  for (size_t layer = 0; layer < 2; ++layer) {
    const Numbers rows = hash.rows_of(layer, {}, ids);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t head = i % config.rows_per_token();
      EXPECT_GE(rows[i], hash.offsets(layer)[head]);
      EXPECT_LT(rows[i], hash.offsets(layer)[head] + hash.primes(layer)[head]);
    }
    EXPECT_EQ(hash.layer_rows(layer) % 64, 0u);
  }
  EXPECT_EQ(hash.first_row(1), hash.layer_rows(0));
  EXPECT_EQ(hash.layer_index(0), 1u);
  EXPECT_THROW(hash.layer_index(7), Error);
}

TEST(EngramHash, ClassesOutsideTheVocabularyAreRefused) {
  const EngramHash hash(with_layers(100, 3, {0}));
  EXPECT_THROW(hash.rows_of(0, {}, std::vector<TokenClass>{5, 100}), Error);
  EXPECT_NO_THROW(hash.rows_of(0, {}, std::vector<TokenClass>{5, 99, -7}));
}

TEST(IsPrime, AgreesWithTrialDivisionAndKnownHardNumbers) {
  for (uint64_t n = 0; n < 5000; ++n) {
    bool prime = n > 1;
    for (uint64_t d = 2; d * d <= n && prime; ++d) prime = n % d != 0;
    EXPECT_EQ(is_prime(n), prime) << n;
  }
  EXPECT_TRUE(is_prime(18446744073709551557u));  // the largest below 2^64
  EXPECT_FALSE(is_prime(18446744073709551615u));
  EXPECT_FALSE(is_prime(3825123056546413051u));  // strong pseudoprime to the bases 2 to 23
  EXPECT_FALSE(is_prime(3215031751u));           // to 2, 3, 5 and 7
  EXPECT_TRUE(is_prime(2305843009213693951u));   // 2^61 - 1
}

}  // namespace
}  // namespace mneme::engram_hash_test
