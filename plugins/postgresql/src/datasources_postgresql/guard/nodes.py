"""The nodes and fields of PostgreSQL's query trees that are known, of versions 14 to 18.

From src/include/nodes/primnodes.h and parsenodes.h, as src/backend/nodes/outfuncs.c writes them. What
is missing here makes a tree unreadable, on purpose: a node of a newer version, or of a fork, may
call functions in a way that nobody here knows.
"""

from __future__ import annotations

# A node and its fields. Nodes of statements that write, and locks of rows, are missing on purpose.
_FIELDS = """
QUERY commandType querySource canSetTag utilityStmt resultRelation hasAggs hasWindowFuncs
    hasTargetSRFs hasSubLinks hasDistinctOn hasRecursive hasModifyingCTE hasForUpdate hasRowSecurity
    hasGroupRTE isReturn cteList rtable rteperminfos jointree mergeActionList mergeUseOuterJoin
    mergeTargetRelation mergeJoinCondition targetList override onConflict returningOldAlias
    returningNewAlias returningList groupClause groupDistinct groupingSets havingQual windowClause
    distinctClause sortClause limitOffset limitCount limitOption rowMarks setOperations
    constraintDeps withCheckOptions stmt_location stmt_len
RANGETBLENTRY alias eref rtekind relid relkind rellockmode tablesample perminfoindex subquery
    security_barrier jointype joinmergedcols joinaliasvars joinleftcols joinrightcols
    join_using_alias functions funcordinality tablefunc values_lists ctename ctelevelsup
    self_reference coltypes coltypmods colcollations enrname enrtuples groupexprs lateral inh inFromCl
    requiredPerms checkAsUser selectedCols insertedCols updatedCols extraUpdatedCols securityQuals
RTEPERMISSIONINFO relid inh requiredPerms checkAsUser selectedCols insertedCols updatedCols
ALIAS aliasname colnames
TARGETENTRY expr resno resname ressortgroupref resorigtbl resorigcol resjunk
FROMEXPR fromlist quals
JOINEXPR jointype isNatural larg rarg usingClause join_using_alias quals alias rtindex
RANGETBLREF rtindex
SORTGROUPCLAUSE tleSortGroupRef eqop sortop reverse_sort nulls_first hashable
GROUPINGSET kind content location
WINDOWCLAUSE name refname partitionClause orderClause frameOptions startOffset endOffset runCondition
    startInRangeFunc endInRangeFunc inRangeColl inRangeAsc inRangeNullsFirst winref copiedOrder
COMMONTABLEEXPR ctename aliascolnames ctematerialized ctequery search_clause cycle_clause location
    cterecursive cterefcount ctecolnames ctecoltypes ctecoltypmods ctecolcollations
CTESEARCHCLAUSE search_col_list search_breadth_first search_seq_column location
CTECYCLECLAUSE cycle_col_list cycle_mark_column cycle_mark_value cycle_mark_default
    cycle_path_column location cycle_mark_type cycle_mark_typmod cycle_mark_collation cycle_mark_neop
SETOPERATIONSTMT op all larg rarg colTypes colTypmods colCollations groupClauses
TABLESAMPLECLAUSE tsmhandler args repeatable
RANGETBLFUNCTION funcexpr funccolcount funccolnames funccoltypes funccoltypmods funccolcollations
    funcparams
TABLEFUNC functype ns_uris ns_names docexpr rowexpr colnames coltypes coltypmods colcollations
    colexprs coldefexprs colvalexprs passingvalexprs notnulls plan ordinalitycol location
VAR varno varattno vartype vartypmod varcollid varnullingrels varlevelsup varreturningtype varnosyn
    varattnosyn location
CONST consttype consttypmod constcollid constlen constbyval constisnull location constvalue
PARAM paramkind paramid paramtype paramtypmod paramcollid location
AGGREF aggfnoid aggtype aggcollid inputcollid aggtranstype aggargtypes aggdirectargs args aggorder
    aggdistinct aggfilter aggstar aggvariadic aggkind aggpresorted agglevelsup aggsplit aggno
    aggtransno location
GROUPINGFUNC args refs cols agglevelsup location
WINDOWFUNC winfnoid wintype wincollid inputcollid args aggfilter runCondition winref winstar winagg
    location
SUBSCRIPTINGREF refcontainertype refelemtype refrestype reftypmod refcollid refupperindexpr
    reflowerindexpr refexpr refassgnexpr
FUNCEXPR funcid funcresulttype funcretset funcvariadic funcformat funccollid inputcollid args location
NAMEDARGEXPR arg name argnumber location
OPEXPR opno opfuncid opresulttype opretset opcollid inputcollid args location
DISTINCTEXPR opno opfuncid opresulttype opretset opcollid inputcollid args location
NULLIFEXPR opno opfuncid opresulttype opretset opcollid inputcollid args location
SCALARARRAYOPEXPR opno opfuncid hashfuncid negfuncid useOr inputcollid args location
BOOLEXPR boolop args location
SUBLINK subLinkType subLinkId testexpr operName subselect location
FIELDSELECT arg fieldnum resulttype resulttypmod resultcollid
RELABELTYPE arg resulttype resulttypmod resultcollid relabelformat location
COERCEVIAIO arg resulttype resultcollid coerceformat location
ARRAYCOERCEEXPR arg elemexpr resulttype resulttypmod resultcollid coerceformat location
CONVERTROWTYPEEXPR arg resulttype convertformat location
COLLATEEXPR arg collOid location
CASEEXPR casetype casecollid arg args defresult location
CASEWHEN expr result location
CASETESTEXPR typeId typeMod collation
ARRAYEXPR array_typeid array_collid element_typeid elements multidims list_start list_end location
ROWEXPR args row_typeid row_format colnames location
ROWCOMPAREEXPR rctype cmptype opnos opfamilies inputcollids largs rargs
COALESCEEXPR coalescetype coalescecollid args location
MINMAXEXPR minmaxtype minmaxcollid inputcollid op args location
SQLVALUEFUNCTION op type typmod location
XMLEXPR op name named_args arg_names args xmloption indent type typmod location
JSONFORMAT format_type encoding location
JSONRETURNING format typid typmod
JSONVALUEEXPR raw_expr formatted_expr format
JSONCONSTRUCTOREXPR type args func coercion returning absent_on_null unique location
JSONISPREDICATE expr format item_type unique_keys location
JSONBEHAVIOR btype expr coerce location
JSONEXPR op column_name formatted_expr format path_spec returning passing_names passing_values
    on_empty on_error use_io_coercion use_json_coercion wrapper omit_quotes collation location
JSONTABLEPATH value name
JSONTABLEPATHSCAN plan path errorOnError child colMin colMax
JSONTABLESIBLINGJOIN plan lplan rplan
NULLTEST arg nulltesttype argisrow location
BOOLEANTEST arg booltesttype location
COERCETODOMAIN arg resulttype resulttypmod resultcollid coercionformat location
COERCETODOMAINVALUE typeId typeMod collation location
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


def _table(text: str) -> dict[str, frozenset[str]]:
    fields: dict[str, frozenset[str]] = {}
    for line in text.replace("\n    ", " ").strip().splitlines():
        label, *names = line.split()
        fields[label] = frozenset(names)
    return fields


FIELDS = _table(_FIELDS)
"""Names of the fields of each node."""
