// SPDX-License-Identifier: MIT
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "tests/conformance/case_file.hpp"

// A GoogleTest suite of one test per case of a file. The file is written before the program starts; where its writer had
// no package to ask, the suite is skipped with the writer's reason, and where fewer cases are found than were written, or
// none of the two files is there, it fails.

namespace headwise::conformance {

/// The file NAME.cases of the build folder, read through once.
const CaseFile& cases(const std::string& name);

/// The indices of its cases, for ValuesIn.
std::vector<Index> indices_of(const CaseFile& file);

/// The body of the suite's one test about the file itself.
void expect_whole(const CaseFile& file, Index at_least);

/// Names tests as the cases.
struct CaseName {
  const CaseFile* file;
  std::string operator()(const ::testing::TestParamInfo<Index>& info) const;
};

}  // namespace headwise::conformance
