// SPDX-License-Identifier: MIT
#pragma once

// The version, stated here only: CMakeLists.txt reads these three lines. Semantic versioning; before 1.0 a minor
// version may change the interface.
#define HEADWISE_VERSION_MAJOR 0
#define HEADWISE_VERSION_MINOR 1
#define HEADWISE_VERSION_PATCH 0
