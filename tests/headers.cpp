// SPDX-License-Identifier: MIT
// Compiles nothing: its target holds the precompiled headers of all tests (CMakeLists.txt).
