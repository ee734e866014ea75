// Names that come from other machines: repository references, file names, addresses.
#include <gmock/gmock.h>

#include "cli/gguf_parts.h"
#include "cli/http_client.h"
#include "cli/hub_files.h"
#include "cli/verb.h"
#include "mneme/error.h"

namespace mneme::cli::hub_names_test {
namespace {

using testing::ElementsAre;

std::vector<std::string> names(const std::vector<HubFile>& files) {
  std::vector<std::string> out;
  for (const HubFile& file : files) out.push_back(file.name);
  return out;
}

std::vector<HubFile> files(std::initializer_list<const char*> list) {
  std::vector<HubFile> out;
  for (const char* name : list) out.push_back({name, {}, ""});
  return out;
}

TEST(HubReference, HasUserRepositoryAndFile) {
  const HubReference whole = parse_hub_reference("hf:ann/Tiny-1.5B_x:Q4_K_M");
  EXPECT_EQ(whole.repository(), "ann/Tiny-1.5B_x");
  EXPECT_EQ(whole.file, "Q4_K_M");
  EXPECT_EQ(parse_hub_reference("hf:a/b").file, "");
}

TEST(HubReference, RefusesWhatCouldLeaveTheStore) {
  for (const char* bad : {"", "hf:", "hf:a", "a/b", "hf:a/", "hf:/b", "hf:../b", "hf:a/..", "hf:a/b/c",
                          "hf:-a/b", "hf:a/b:", "hf:a b/c", "hf:a/b\n"})
    EXPECT_THROW(parse_hub_reference(bad), UsageError) << bad;
}

TEST(HubFiles, NamesThatCouldLeaveTheFolderAreRefused) {
  for (const char* bad :
       {"", "/a", "..", "../a", "a/../b", "a//b", "a/", "./a", ".a", "a\\b", "c:a", "a\nb", "\x7f"})
    EXPECT_THROW(check_hub_file_name(bad), Error) << bad;
  for (const char* good : {"a", "a/b.gguf", "Q4_K_M/model-00001-of-00002.gguf", "ä.gguf", "a..b"})
    EXPECT_NO_THROW(check_hub_file_name(good)) << good;
}

TEST(HubFiles, MiddleSizeIsPreferredAndProjectorsAreNoModels) {
  EXPECT_THAT(names(choose_hub_files(
                  files({"m-F16.gguf", "m-Q8_0.gguf", "m-q4_k_m.gguf", "mmproj-Q4_K_M.gguf"}), "", "r")),
              ElementsAre("m-q4_k_m.gguf"));
  EXPECT_THAT(names(choose_hub_files(files({"m-F16.gguf", "m-Q8_0.gguf"}), "", "r")),
              ElementsAre("m-Q8_0.gguf"));
  EXPECT_THAT(names(choose_hub_files(files({"m-odd.gguf"}), "", "r")), ElementsAre("m-odd.gguf"));
}

TEST(HubFiles, PartsOfASplitComeInOrder) {
  const auto all = files({"m-00002-of-00002.gguf", "m-00001-of-00002.gguf", "other.gguf"});
  EXPECT_THAT(names(choose_hub_files(all, "m.gguf", "r")),
              ElementsAre("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"));
  EXPECT_THAT(names(choose_hub_files(all, "m-00002-of-00002.gguf", "r")),
              ElementsAre("m-00001-of-00002.gguf", "m-00002-of-00002.gguf"));
}

TEST(HubFiles, ShardsAreTakenInsteadOfTheSameWeightsInOneFile) {
  EXPECT_THAT(names(choose_hub_files(
                  files({"config.json", "consolidated.safetensors", "model-00001-of-00002.safetensors",
                         "model-00002-of-00002.safetensors", "model.safetensors.index.json"}),
                  "", "r")),
              ElementsAre("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
                          "model.safetensors.index.json", "config.json"));
}

TEST(HubFiles, ListingKeepsSizesAndHashesThatAreWellFormed) {
  const std::string hash(64, 'a');
  const auto listed = parse_hub_listing(
      R"({"siblings": [{"rfilename": "a", "size": 5, "lfs": {"sha256": ")" + hash +
          R"("}}, {"rfilename": "b", "size": -1, "lfs": {"sha256": "zz"}}, {"size": 1}, 3]})",
      "r");
  ASSERT_EQ(listed.size(), 2u);
  EXPECT_EQ(listed[0].bytes, 5u);
  EXPECT_EQ(listed[0].sha256, hash);
  EXPECT_FALSE(listed[1].bytes.has_value());
  EXPECT_EQ(listed[1].sha256, "");
}

TEST(GgufParts, OnlyTheExactShapeIsAPart) {
  EXPECT_EQ(gguf_part("m-00012-of-00013.gguf").number, 12);
  EXPECT_EQ(gguf_part("m-00012-of-00013.gguf").whole, "m.gguf");
  for (const char* name :
       {"m.gguf", "-00001-of-00002.gguf", "m-0001-of-00002.gguf", "m-00001-of-00002.txt", ""})
    EXPECT_EQ(gguf_part(name).whole, name);
}

TEST(Urls, AreTakenApart) {
  const Url url = parse_url("https://host:8080/a/b?c=d#e");
  EXPECT_EQ(url.origin(), "https://host:8080");
  EXPECT_EQ(url.path, "/a/b?c=d");
  EXPECT_EQ(parse_url("http://host").path, "/");
  for (const char* bad :
       {"", "host", "ftp://host/", "http://", "http:///x", "http://user@host/", "http://a b/"})
    EXPECT_THROW(parse_url(bad), Error) << bad;
}

TEST(Urls, LocationsAreResolvedAgainstTheirBase) {
  const Url base = parse_url("https://host/a/b?c");
  EXPECT_EQ(resolve_url(base, "/x?y").text(), "https://host/x?y");
  EXPECT_EQ(resolve_url(base, "x").text(), "https://host/a/x");
  EXPECT_EQ(resolve_url(base, "//other/x").text(), "https://other/x");
  EXPECT_EQ(resolve_url(base, "http://other/x").text(), "http://other/x");
  EXPECT_THROW(resolve_url(base, ""), Error);
  EXPECT_THROW(resolve_url(base, "ftp://other/"), Error);
}

TEST(Urls, PathsAreEncodedByteByByte) {
  EXPECT_EQ(encode_path("a b/ä+%?.gguf"), "a%20b/%C3%A4%2B%25%3F.gguf");
}

}  // namespace
}  // namespace mneme::cli::hub_names_test
