"""The nodes and fields of PostgreSQL's query trees that are known, of versions 14 to 18.

From src/include/nodes/primnodes.h and parsenodes.h, as src/backend/nodes/outfuncs.c writes them. What
is missing here makes a tree unreadable, on purpose: a node of a newer version, or of a fork, may
call functions in a way that nobody here knows.
"""

from __future__ import annotations

FIELDS: dict[str, frozenset[str]] = {
    "QUERY": frozenset({
        "commandType", "querySource", "canSetTag", "utilityStmt", "resultRelation", "hasAggs",
        "hasWindowFuncs", "hasTargetSRFs", "hasSubLinks", "hasDistinctOn", "hasRecursive",
        "hasModifyingCTE", "hasForUpdate", "hasRowSecurity", "hasGroupRTE", "isReturn", "cteList",
        "rtable", "rteperminfos", "jointree", "mergeActionList", "mergeUseOuterJoin",
        "mergeTargetRelation", "mergeJoinCondition", "targetList", "override", "onConflict",
        "returningOldAlias", "returningNewAlias", "returningList", "groupClause", "groupDistinct",
        "groupingSets", "havingQual", "windowClause", "distinctClause", "sortClause",
        "limitOffset", "limitCount", "limitOption", "rowMarks", "setOperations", "constraintDeps",
        "withCheckOptions", "stmt_location", "stmt_len",
    }),
    "RANGETBLENTRY": frozenset({
        "alias", "eref", "rtekind", "relid", "relkind", "rellockmode", "tablesample",
        "perminfoindex", "subquery", "security_barrier", "jointype", "joinmergedcols",
        "joinaliasvars", "joinleftcols", "joinrightcols", "join_using_alias", "functions",
        "funcordinality", "tablefunc", "values_lists", "ctename", "ctelevelsup", "self_reference",
        "coltypes", "coltypmods", "colcollations", "enrname", "enrtuples", "groupexprs", "lateral",
        "inh", "inFromCl", "requiredPerms", "checkAsUser", "selectedCols", "insertedCols",
        "updatedCols", "extraUpdatedCols", "securityQuals",
    }),
    "RTEPERMISSIONINFO": frozenset({
        "relid", "inh", "requiredPerms", "checkAsUser", "selectedCols", "insertedCols",
        "updatedCols",
    }),
    "ALIAS": frozenset({"aliasname", "colnames"}),
    "TARGETENTRY": frozenset({
        "expr", "resno", "resname", "ressortgroupref", "resorigtbl", "resorigcol", "resjunk",
    }),
    "FROMEXPR": frozenset({"fromlist", "quals"}),
    "JOINEXPR": frozenset({
        "jointype", "isNatural", "larg", "rarg", "usingClause", "join_using_alias", "quals",
        "alias", "rtindex",
    }),
    "RANGETBLREF": frozenset({"rtindex"}),
    "SORTGROUPCLAUSE": frozenset({
        "tleSortGroupRef", "eqop", "sortop", "reverse_sort", "nulls_first", "hashable",
    }),
    "GROUPINGSET": frozenset({"kind", "content", "location"}),
    "WINDOWCLAUSE": frozenset({
        "name", "refname", "partitionClause", "orderClause", "frameOptions", "startOffset",
        "endOffset", "runCondition", "startInRangeFunc", "endInRangeFunc", "inRangeColl",
        "inRangeAsc", "inRangeNullsFirst", "winref", "copiedOrder",
    }),
    "COMMONTABLEEXPR": frozenset({
        "ctename", "aliascolnames", "ctematerialized", "ctequery", "search_clause", "cycle_clause",
        "location", "cterecursive", "cterefcount", "ctecolnames", "ctecoltypes", "ctecoltypmods",
        "ctecolcollations",
    }),
    "CTESEARCHCLAUSE": frozenset({
        "search_col_list", "search_breadth_first", "search_seq_column", "location",
    }),
    "CTECYCLECLAUSE": frozenset({
        "cycle_col_list", "cycle_mark_column", "cycle_mark_value", "cycle_mark_default",
        "cycle_path_column", "location", "cycle_mark_type", "cycle_mark_typmod",
        "cycle_mark_collation", "cycle_mark_neop",
    }),
    "SETOPERATIONSTMT": frozenset({
        "op", "all", "larg", "rarg", "colTypes", "colTypmods", "colCollations", "groupClauses",
    }),
    "TABLESAMPLECLAUSE": frozenset({"tsmhandler", "args", "repeatable"}),
    "RANGETBLFUNCTION": frozenset({
        "funcexpr", "funccolcount", "funccolnames", "funccoltypes", "funccoltypmods",
        "funccolcollations", "funcparams",
    }),
    "TABLEFUNC": frozenset({
        "functype", "ns_uris", "ns_names", "docexpr", "rowexpr", "colnames", "coltypes",
        "coltypmods", "colcollations", "colexprs", "coldefexprs", "colvalexprs", "passingvalexprs",
        "notnulls", "plan", "ordinalitycol", "location",
    }),
    "VAR": frozenset({
        "varno", "varattno", "vartype", "vartypmod", "varcollid", "varnullingrels", "varlevelsup",
        "varreturningtype", "varnosyn", "varattnosyn", "location",
    }),
    "CONST": frozenset({
        "consttype", "consttypmod", "constcollid", "constlen", "constbyval", "constisnull",
        "location", "constvalue",
    }),
    "PARAM": frozenset({
        "paramkind", "paramid", "paramtype", "paramtypmod", "paramcollid", "location",
    }),
    "AGGREF": frozenset({
        "aggfnoid", "aggtype", "aggcollid", "inputcollid", "aggtranstype", "aggargtypes",
        "aggdirectargs", "args", "aggorder", "aggdistinct", "aggfilter", "aggstar", "aggvariadic",
        "aggkind", "aggpresorted", "agglevelsup", "aggsplit", "aggno", "aggtransno", "location",
    }),
    "GROUPINGFUNC": frozenset({"args", "refs", "cols", "agglevelsup", "location"}),
    "WINDOWFUNC": frozenset({
        "winfnoid", "wintype", "wincollid", "inputcollid", "args", "aggfilter", "runCondition",
        "winref", "winstar", "winagg", "location",
    }),
    "SUBSCRIPTINGREF": frozenset({
        "refcontainertype", "refelemtype", "refrestype", "reftypmod", "refcollid",
        "refupperindexpr", "reflowerindexpr", "refexpr", "refassgnexpr",
    }),
    "FUNCEXPR": frozenset({
        "funcid", "funcresulttype", "funcretset", "funcvariadic", "funcformat", "funccollid",
        "inputcollid", "args", "location",
    }),
    "NAMEDARGEXPR": frozenset({"arg", "name", "argnumber", "location"}),
    "OPEXPR": frozenset({
        "opno", "opfuncid", "opresulttype", "opretset", "opcollid", "inputcollid", "args",
        "location",
    }),
    "DISTINCTEXPR": frozenset({
        "opno", "opfuncid", "opresulttype", "opretset", "opcollid", "inputcollid", "args",
        "location",
    }),
    "NULLIFEXPR": frozenset({
        "opno", "opfuncid", "opresulttype", "opretset", "opcollid", "inputcollid", "args",
        "location",
    }),
    "SCALARARRAYOPEXPR": frozenset({
        "opno", "opfuncid", "hashfuncid", "negfuncid", "useOr", "inputcollid", "args", "location",
    }),
    "BOOLEXPR": frozenset({"boolop", "args", "location"}),
    "SUBLINK": frozenset({
        "subLinkType", "subLinkId", "testexpr", "operName", "subselect", "location",
    }),
    "FIELDSELECT": frozenset({"arg", "fieldnum", "resulttype", "resulttypmod", "resultcollid"}),
    "RELABELTYPE": frozenset({
        "arg", "resulttype", "resulttypmod", "resultcollid", "relabelformat", "location",
    }),
    "COERCEVIAIO": frozenset({"arg", "resulttype", "resultcollid", "coerceformat", "location"}),
    "ARRAYCOERCEEXPR": frozenset({
        "arg", "elemexpr", "resulttype", "resulttypmod", "resultcollid", "coerceformat",
        "location",
    }),
    "CONVERTROWTYPEEXPR": frozenset({"arg", "resulttype", "convertformat", "location"}),
    "COLLATEEXPR": frozenset({"arg", "collOid", "location"}),
    "CASEEXPR": frozenset({"casetype", "casecollid", "arg", "args", "defresult", "location"}),
    "CASEWHEN": frozenset({"expr", "result", "location"}),
    "CASETESTEXPR": frozenset({"typeId", "typeMod", "collation"}),
    "ARRAYEXPR": frozenset({
        "array_typeid", "array_collid", "element_typeid", "elements", "multidims", "list_start",
        "list_end", "location",
    }),
    "ROWEXPR": frozenset({"args", "row_typeid", "row_format", "colnames", "location"}),
    "ROWCOMPAREEXPR": frozenset({
        "rctype", "cmptype", "opnos", "opfamilies", "inputcollids", "largs", "rargs",
    }),
    "COALESCEEXPR": frozenset({"coalescetype", "coalescecollid", "args", "location"}),
    "MINMAXEXPR": frozenset({
        "minmaxtype", "minmaxcollid", "inputcollid", "op", "args", "location",
    }),
    "SQLVALUEFUNCTION": frozenset({"op", "type", "typmod", "location"}),
    "XMLEXPR": frozenset({
        "op", "name", "named_args", "arg_names", "args", "xmloption", "indent", "type", "typmod",
        "location",
    }),
    "JSONFORMAT": frozenset({"format_type", "encoding", "location"}),
    "JSONRETURNING": frozenset({"format", "typid", "typmod"}),
    "JSONVALUEEXPR": frozenset({"raw_expr", "formatted_expr", "format"}),
    "JSONCONSTRUCTOREXPR": frozenset({
        "type", "args", "func", "coercion", "returning", "absent_on_null", "unique", "location",
    }),
    "JSONISPREDICATE": frozenset({"expr", "format", "item_type", "unique_keys", "location"}),
    "JSONBEHAVIOR": frozenset({"btype", "expr", "coerce", "location"}),
    "JSONEXPR": frozenset({
        "op", "column_name", "formatted_expr", "format", "path_spec", "returning", "passing_names",
        "passing_values", "on_empty", "on_error", "use_io_coercion", "use_json_coercion",
        "wrapper", "omit_quotes", "collation", "location",
    }),
    "JSONTABLEPATH": frozenset({"value", "name"}),
    "JSONTABLEPATHSCAN": frozenset({"plan", "path", "errorOnError", "child", "colMin", "colMax"}),
    "JSONTABLESIBLINGJOIN": frozenset({"plan", "lplan", "rplan"}),
    "NULLTEST": frozenset({"arg", "nulltesttype", "argisrow", "location"}),
    "BOOLEANTEST": frozenset({"arg", "booltesttype", "location"}),
    "COERCETODOMAIN": frozenset({
        "arg", "resulttype", "resulttypmod", "resultcollid", "coercionformat", "location",
    }),
    "COERCETODOMAINVALUE": frozenset({"typeId", "typeMod", "collation", "location"}),
}  # fmt: skip
"""Names of the fields of each node.

Nodes of statements that write, and locks of rows, are missing on purpose.
"""
# PostgreSQL 14 and 15 write some nodes under shorter names.
LABELS = {
    "RTE": "RANGETBLENTRY",
    "CASE": "CASEEXPR",
    "WHEN": "CASEWHEN",
    "ARRAY": "ARRAYEXPR",
    "ROW": "ROWEXPR",
    "ROWCOMPARE": "ROWCOMPAREEXPR",
    "COALESCE": "COALESCEEXPR",
    "COLLATE": "COLLATEEXPR",
    "MINMAX": "MINMAXEXPR",
}
