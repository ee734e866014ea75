# Compile options shared by every target, and mneme_folder(): one object library per folder of src/.
add_library(mneme_options INTERFACE)
target_compile_options(mneme_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor> -ffp-contract=off
                       "-ffile-prefix-map=${CMAKE_SOURCE_DIR}=.")
# GCC 12 reports overlapping copies inside its own operator+(const char*, std::string) (GCC bug 105651).
target_compile_options(mneme_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict>)
if(MNEME_WERROR)
  target_compile_options(mneme_options INTERFACE -Werror)
endif()
if(MNEME_GLIBCXX_ASSERTIONS)
  target_compile_definitions(mneme_options INTERFACE _GLIBCXX_ASSERTIONS)
endif()
if(MNEME_SANITIZE)
  target_compile_options(mneme_options INTERFACE -fsanitize=${MNEME_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(mneme_options INTERFACE -fsanitize=${MNEME_SANITIZE})
  target_compile_definitions(mneme_options INTERFACE MNEME_SANITIZED)
endif()

if(MNEME_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "MNEME_FUZZ needs clang for libFuzzer; use: cmake --preset asan")
  endif()
endif()

# Options of what is not the library: the command and the tests. Nothing in them is hot, and half of the time to compile them was optimisation.
# Under sanitizers what they instantiate of CLI11 and GoogleTest need not be watched for undefined behaviour a hundred times over.
add_library(mneme_outer_options INTERFACE)
if(MNEME_SANITIZE)
  target_compile_options(mneme_outer_options INTERFACE $<$<CONFIG:RelWithDebInfo>:-O0> -fno-sanitize=undefined)
else()
  target_compile_options(mneme_outer_options INTERFACE $<$<CONFIG:RelWithDebInfo>:-O1>)
endif()

# mneme_folder(NAME DEPS folder... LIBS target...): compiles src/NAME/*.cpp and src/NAME/*/*.cpp. DEPS are folders lower in the house;
# including a folder that is not among them fails tests/house_test.
set(MNEME_FOLDERS "" CACHE INTERNAL "")
function(mneme_folder name)
  cmake_parse_arguments(ARG "" "" "DEPS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp
       ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*/*.cpp)
  add_library(mneme_${name} OBJECT ${sources})
  target_include_directories(mneme_${name} PUBLIC ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(mneme_${name} PUBLIC mneme_options ${ARG_LIBS})
  foreach(dep ${ARG_DEPS})
    target_link_libraries(mneme_${name} PUBLIC mneme_${dep})
  endforeach()
  if(NOT name STREQUAL simd)
    set(together ${MNEME_UNITY})
    if(MNEME_UNITY_OUTER AND name MATCHES "^(text|files|eval|cost|convert)$")
      set(together ON)
    endif()
    set_target_properties(mneme_${name} PROPERTIES UNITY_BUILD ${together} UNITY_BUILD_BATCH_SIZE 12)
    if(MNEME_FUZZ)
      target_compile_options(mneme_${name} PRIVATE -fsanitize=fuzzer-no-link)  # coverage in the library, main() in the target
    endif()
  elseif(MNEME_SANITIZE)
    # Kernels are inlined loads and stores by the thousand: a check of each pointer makes clang three times slower, coverage ten times.
    # AddressSanitizer still watches every one of them.
    # A property of the sources, because -fsanitize, which comes with mneme_options, would turn them on again after an option of the target.
    set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=alignment,null,object-size,vptr,pointer-overflow)
  endif()
  set(MNEME_FOLDERS ${MNEME_FOLDERS} ${name} CACHE INTERNAL "")
endfunction()
