// SPDX-License-Identifier: MIT
#include "tests/conformance/suite.hpp"

#include <cstdio>
#include <map>
#include <numeric>
#include <set>

namespace headwise::conformance {

const CaseFile& cases(const std::string& name) {
  static std::map<std::string, CaseFile> files;
  const auto found = files.find(name);
  if (found != files.end()) return found->second;
  return files.emplace(name, CaseFile(HEADWISE_CONFORMANCE_CASES "/" + name + ".cases")).first->second;
}

std::vector<Index> indices_of(const CaseFile& file) {
  std::vector<Index> all(file.names().size());
  std::iota(all.begin(), all.end(), Index{0});
  return all;
}

void expect_whole(const CaseFile& file, Index at_least) {
  if (!file.exists() && !file.reason().empty()) GTEST_SKIP() << "suite skipped: " << file.reason();
  ASSERT_TRUE(file.exists()) << file.path() << " was not written";
  EXPECT_EQ(std::ssize(file.names()), file.promised());
  EXPECT_GE(file.promised(), at_least);
  EXPECT_EQ(std::set<std::string>(file.names().begin(), file.names().end()).size(), file.names().size());
}

std::string CaseName::operator()(const ::testing::TestParamInfo<Index>& info) const {
  std::string name = file->names()[static_cast<std::size_t>(info.param)];
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

namespace {

/// Says at the end how many cases of each suite passed, were skipped and why, and failed.
class Counts : public ::testing::EmptyTestEventListener {
  void OnTestEnd(const ::testing::TestInfo& info) override {
    if (info.value_param() == nullptr) return;
    Count& count = counts_[info.test_suite_name()];
    if (info.result()->Failed())
      ++count.failed;
    else if (!info.result()->Skipped())
      ++count.passed;
    else
      ++count.skipped[info.result()->GetTestPartResult(0).message()];
  }
  void OnTestProgramEnd(const ::testing::UnitTest&) override {
    for (const auto& [suite, count] : counts_) {
      int skipped = 0;
      for (const auto& [reason, cases] : count.skipped) skipped += cases;
      std::printf("conformance %s: %d cases passed, %d failed, %d left out\n", suite.c_str(), count.passed,
                  count.failed, skipped);
      for (const auto& [reason, cases] : count.skipped) std::printf("  %d: %s\n", cases, reason.c_str());
    }
  }
  struct Count {
    int passed = 0, failed = 0;
    std::map<std::string, int> skipped;
  };
  std::map<std::string, Count> counts_;
};

[[maybe_unused]] const bool counting = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new Counts);  // which owns it
  return true;
}();

}  // namespace

}  // namespace headwise::conformance
